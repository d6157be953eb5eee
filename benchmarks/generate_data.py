"""Examples a second and core: drawn, explained at one level, split, deduplicated, hashed, written as Parquet
shards."""

import shutil
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.measure import Figure, alternately, spread
from showhow.datasets.generate import generate
from showhow.study.dataset_spec import TRAIN, DatasetSpec
from showhow.tasks import task_named
from showhow.tasks.explain import Level

CASES = (("modular_sum", {"terms": 8}, 20_000), ("listops-30", {}, 4_000))


def figures(full: bool = False) -> list[Figure]:
    """Generate each case at level long, five times, into a fresh folder each time."""
    found = []
    for name, changes, examples in CASES:
        spec = DatasetSpec(
            task=task_named(name, changes),
            level=Level.LONG,
            split=TRAIN,
            examples=examples,
            seed=0,
            control_length=Level.LONG,
        )
        taken, _ = alternately(lambda spec=spec: _generate(spec), None)
        found.append(Figure(f"generate {name}, long", "examples/s", examples / median(taken), spread(taken)))
    return found


def _generate(spec: DatasetSpec) -> None:
    home = Path(tempfile.mkdtemp())
    generate(spec, home, on_cluster=False)
    shutil.rmtree(home)
