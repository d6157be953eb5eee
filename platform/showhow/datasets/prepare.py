"""Prepares the data of a study's trials: each distinct dataset is generated once, and tokenised once per tokenizer.

Small datasets are made in this process, while the cluster's processes still start; large ones by Ray Data on the
cluster. Both use the same functions, so the bytes are the same.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from showhow.datasets.data_bench import DataBench
from showhow.datasets.dataset import Dataset
from showhow.datasets.generate import is_large
from showhow.datasets.manifest import Manifest
from showhow.datasets.tokenise import read_lengths, tokenise
from showhow.datasets.tokenizer import StudyTokenizer, check_settings, settings_folder, tokenizer_for
from showhow.errors import TrialError, UserError
from showhow.fingerprint import Json
from showhow.methods.base import Method
from showhow.models.settings import longest_row
from showhow.sections.dataset_spec import TRAIN
from showhow.sections.recipe import PretrainedModel
from showhow.sections.trial import Trial


@dataclass(frozen=True)
class Prepared:
    """The data of one trial: tokenised shards and manifests by split, and the tokenizer."""

    shards: dict[str, str]
    tokenizer: str
    manifests: dict[str, dict[str, Json]]


class Preparation:
    """The datasets of a study, made when a trial first needs them and shared by all trials."""

    def __init__(self, home: Path, say: Callable[[str], None]) -> None:
        """`home`: the folder of all studies, reachable from every process of the cluster. `say` prints lines about
        progress."""
        self._home, self._say = home, say
        # While trials occupy the cluster's processors, Ray Data would wait forever.
        self.may_use_cluster = True
        self._ready: dict[tuple[str, str, str, int], str] = {}
        self._tokenizers: dict[str, StudyTokenizer] = {}
        self._summaries: dict[str, dict[str, Json]] = {}

    def prepare(self, trials: Iterable[Trial]) -> None:
        """Make all data of these trials. Raises UserError when a dataset cannot be made or is corrupt."""
        self._make((trial, split) for trial in trials for split in trial.splits)

    def prepare_small(self, trials: Iterable[Trial]) -> None:
        """Make the data of these trials that needs no cluster. Raises UserError like `prepare`."""
        reads = ((trial, split) for trial in trials for split in trial.splits)
        self._make((trial, split) for trial, split in reads if not is_large(trial.dataset(split)))

    def _make(self, reads: Iterable[tuple[Trial, str]]) -> None:
        wanted = {self._key(trial, split): (trial, split) for trial, split in reads}
        missing = {key: trial for key, trial in wanted.items() if key not in self._ready}
        if missing:
            self._say(f"preparing {len(missing)} datasets")
        for key, (trial, split) in missing.items():
            self._ready[key] = self._prepare_one(trial, split)

    def of(self, trial: Trial) -> Prepared:
        """Return the data of a trial."""
        self.prepare([trial])
        shards = {split: self._ready[self._key(trial, split)] for split in trial.splits}
        words = self._tokenizer(trial)
        manifests = {split: self._summary(trial, path) for split, path in shards.items()}
        return Prepared(shards, str(self._tokenizer_path(words)), manifests)

    def _summary(self, trial: Trial, tokens: str) -> dict[str, Json]:
        """Return what the tracker shows of a dataset; the rest is in its manifest, in the folder `path`."""
        if tokens not in self._summaries:  # hundreds of runs may read the same dataset
            lengths, folder = read_lengths(Path(tokens)), Path(tokens).parent
            manifest = Manifest.read(folder)
            if manifest is None:
                raise UserError(f"{folder} was removed while the study ran; run it again")
            shown = manifest.model_dump(mode="json", exclude={"spec", "shards", "source", "derivation"})
            self._summaries[tokens] = shown | {
                **(manifest.source.model_dump(mode="json") if manifest.source else {}),
                "rows_too_long": lengths.dropped if lengths else 0,
                "task": trial.task.kind,
                "level": trial.level.value,
                "path": str(folder),
            }
        return self._summaries[tokens]

    @property
    def _datasets(self) -> Path:
        return self._home / "datasets"

    def _key(self, trial: Trial, split: str) -> tuple[str, str, str, int]:
        method = trial.method.model_dump_json() if _makes_its_own(trial.method, split) else ""
        return trial.dataset(split).fingerprint, method, self._tokenizer(trial).fingerprint, trial.data.max_tokens

    def _prepare_one(self, trial: Trial, split: str) -> str:
        check_settings(trial)
        spec = trial.dataset(split)
        if self.may_use_cluster and is_large(spec):
            self._say(f"generating {spec.examples:,} {split} examples at level {spec.level} on the cluster")
        bench = DataBench(trial, self._datasets, on_cluster=self.may_use_cluster)
        return str(tokens_of(_data_of(trial.method, bench, split), trial, self._tokenizer(trial)))

    def _tokenizer(self, trial: Trial) -> StudyTokenizer:
        # Levels share one tokenizer, so that they differ only in the explanation.
        tasks = sorted({trial.dataset(split).task for split in trial.splits}, key=lambda task: task.model_dump_json())
        key = trial.model.model_dump_json(include={"kind", "name", "questions"}) + "".join(
            task.model_dump_json() for task in tasks
        )
        key += "".join(trial.method.texts)
        if key not in self._tokenizers:
            words = tokenizer_for(trial.model, list(tasks), trial.method.texts)
            words.save(self._tokenizer_path(words))
            self._tokenizers[key] = words
        return self._tokenizers[key]

    def _tokenizer_path(self, words: StudyTokenizer) -> Path:
        return self._home / "tokenizers" / words.fingerprint / "tokenizer.json"


def tokens_of(data: Dataset, trial: Trial, words: StudyTokenizer) -> Path:
    """Return the tokenised file of a trial's dataset, and write it if it does not exist. Raises UserError where too
    many rows are too long."""
    room = None
    if isinstance(trial.model, PretrainedModel):
        room = longest_row(trial, settings_folder(trial.model.name))
    return tokenise(data.folder, words, trial.data.max_tokens, trial.data.max_dropped_share, room)


def _data_of(method: Method, bench: DataBench, split: str) -> Dataset:
    """Return the dataset of a split. An error in a user's method becomes a UserError, for its author to fix."""
    try:
        data = method.prepare(bench) if split == TRAIN else bench.questions(split)
    except TrialError as error:
        raise UserError(f"the method {method.kind} cannot prepare its data: {error}") from error
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        if type(method).__module__.startswith("showhow."):
            raise
        raise UserError(f"the method {method.kind} cannot prepare its data: {type(error).__name__}: {error}") from error
    if data is None:
        return bench.problems()
    if not isinstance(data, Dataset):
        raise UserError(
            f"the method {method.kind} prepared {type(data).__name__}; prepare must return data of the bench, or None"
        )
    return data


def _makes_its_own(method: Method, split: str) -> bool:
    """True where a method makes its own data; all other methods share the task's problems."""
    kind = type(method)
    return kind.prepare is not Method.prepare if split == TRAIN else kind.asked is not Method.asked
