"""The folder of a study: the paths in it, and whether a study of this name may run or resume there."""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from showhow.errors import UserError, nearest
from showhow.fingerprint import Json, placeless
from showhow.sections.faults import faults_of
from showhow.study.study import NOT_COMPUTED, Study

_AGAIN = "Run the study again under another name"
_REGISTER = (
    "Register your own classes first: in Python, import them and call showhow.results, showhow.export or "
    "showhow.predict; the command finds classes of installed packages by their entry points"
)


def home_folder() -> Path:
    """Return the folder of all studies: SHOWHOW_HOME, or `showhow-runs` here."""
    return Path(os.environ.get("SHOWHOW_HOME") or "showhow-runs").resolve()


@dataclass(frozen=True)
class StudyFolder:
    """One study's folder within the home."""

    home: Path
    name: str

    @property
    def path(self) -> Path:
        """The folder."""
        return self.home / self.name

    @property
    def journal(self) -> Path:
        """All events, one JSON object per line: the source of everything else."""
        return self.path / "journal.jsonl"

    @property
    def results(self) -> Path:
        """The comparison as JSON."""
        return self.path / "results.json"

    @property
    def picture(self) -> Path:
        """Accuracy against examples."""
        return self.path / "accuracy.png"

    @property
    def checkpoints(self) -> Path:
        """A folder, named by its key, for each run with saved state or weights."""
        return self.path / "checkpoints"

    def exported(self, run: str) -> Path:
        """The folder of an exported run, by its key."""
        return self.path / "exported" / run.replace("/", "-")

    @property
    def definition(self) -> Path:
        """The study with its defaults filled in."""
        return self.path / "study.json"

    def study(self) -> Study:
        """Return the study that the folder was claimed for. Raises UserError when its definition cannot be read."""
        try:
            return Study.model_validate_json(self.definition.read_bytes(), strict=True)
        except ValidationError as error:
            faults = faults_of(error, Study)
            is_unknown = any(key.endswith("kind") or key == "evaluation.metrics" for key, _ in faults)
            details = "; ".join(f"{key}: {message}" for key, message in faults).rstrip(".")
            raise UserError(
                f"{self.definition} cannot be read: {details}. {_REGISTER if is_unknown else _AGAIN}"
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"{self.definition} cannot be read ({error}). {_AGAIN}") from None

    def claim(self, study: Study) -> None:
        """Claim the folder for a study, or to resume the same study. Raises UserError when another study has it."""
        if self.has_begun and self.definition.exists():
            changed = _differences(placeless(self._claimed()), placeless(study.definition()))
            if changed:
                raise UserError(
                    f'the name "{self.name}" is in use by a study with other content ({self.path}): '
                    f"{'; '.join(changed[:4])}. Give this one another name with --name, or delete that folder"
                )
            return
        try:
            partial = self.definition.with_suffix(".partial")
            partial.write_text(json.dumps(study.definition(), indent=2) + "\n", encoding="utf-8")
            partial.replace(self.definition)
        except OSError as error:
            raise self._unwritable(error) from None

    def make(self) -> None:
        """Make the folder if it is missing. Raises UserError when nothing can be written there."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self.journal.open("ab"):
                pass
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"{self.path} cannot be written ({error.strerror}). Results go to the folder showhow-runs here; "
            "set SHOWHOW_HOME to put them elsewhere"
        )

    @property
    def has_begun(self) -> bool:
        """True once the study has an event; before that its name is free."""
        return self.journal.is_file() and self.journal.stat().st_size > 0

    def release(self) -> None:
        """Remove our files if the study was refused before its first event."""
        if self.has_begun:
            return
        for ours in (self.journal, self.definition, self.path / "mlflow.json"):
            ours.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it contains other files, and stays
            self.path.rmdir()

    def _claimed(self) -> Json:
        try:
            claimed: Json = json.loads(self.definition.read_bytes())
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.definition} cannot be read ({error}). Give this study another name with --name, or delete "
                f"the folder {self.path}"
            ) from None
        return claimed

    @classmethod
    def existing(cls, home: Path, name: str) -> "StudyFolder":
        """Return the folder of a started study. Raises UserError listing the existing ones."""
        folder = cls(home, name)
        if not folder.has_begun:
            known = sorted(path.parent.name for path in home.glob("*/journal.jsonl"))
            listed = (
                f"Studies there: {', '.join(known)}" if known else 'None yet; start one with "showhow run STUDY.toml"'
            )
            hint = nearest(name, known) or nearest(Path(name).stem, known)  # the study file's name
            raise UserError(f'there is no study "{name}" in {home}.{hint} {listed}')
        return folder


def _differences(before: Json, after: Json, key: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        names = [name for name in dict.fromkeys([*before, *after]) if key or name not in NOT_COMPUTED]
        return [
            d for name in names for d in _differences(before.get(name), after.get(name), f"{key}.{name}".lstrip("."))
        ]
    return [] if before == after else [f"{key} was {json.dumps(before)} and is now {json.dumps(after)}"]
