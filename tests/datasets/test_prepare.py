"""Laws of preparation: what waits for a cluster and what does not."""

from pathlib import Path

from showhow.datasets.generate import is_large
from showhow.datasets.prepare import Preparation
from showhow.study.dataset_spec import TRAIN
from showhow.study.plan import planned_trials
from showhow.study.study import Study

QUICKSTART = Path(__file__).parents[2] / "search_spaces" / "quickstart.toml"


def test_large_datasets_are_left_to_the_cluster_and_small_ones_made_before_it_is_there(tmp_path: Path) -> None:
    changes = ["task.terms=9", "data.train_examples=10_000_000", "search.samples=1"]
    trial = planned_trials(Study.load(QUICKSTART, changes))[0]
    preparation = Preparation(tmp_path, lambda _line: None)
    preparation.prepare_small([trial])
    made = {folder.name for folder in (tmp_path / "datasets").iterdir()}
    assert is_large(trial.dataset(TRAIN))
    assert made == {trial.dataset(split).fingerprint for split in trial.splits if split != TRAIN}
