"""Laws of a study's folder: the same study goes on in it, another one is refused and nothing is half-written."""

import json
from pathlib import Path

import pytest
from studies import changed, load

from showhow.errors import UserError
from showhow.home.folder import StudyFolder, home_folder


def claimed(tmp_path: Path) -> StudyFolder:
    """A folder in which a study has begun."""
    folder = StudyFolder(tmp_path, "small")
    folder.make()
    folder.claim(load(tmp_path))
    folder.journal.write_text("{}\n")
    return folder


def test_the_same_study_goes_on_in_its_folder(tmp_path: Path) -> None:
    study, folder = load(tmp_path), claimed(tmp_path)
    before = folder.definition.read_bytes()
    folder.claim(study)
    assert folder.definition.read_bytes() == before
    assert json.loads(before) == study.definition()


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (("method", {"kind": "mine"}), r'study\.json cannot be read: method\.kind: got "mine"\. .*Register'),
        (("evaluation", {"metrics": ["mine"]}), r'evaluation\.metrics: got "mine"\. .*Register your own'),
        (
            ("seeds", []),
            r"cannot be read: seeds: got \[\], must not be empty\. Run the study again under another name$",
        ),
    ],
)
def test_a_stored_study_whose_classes_are_not_here_says_so(tmp_path: Path, now: tuple[str, object], said: str) -> None:
    folder = claimed(tmp_path)
    folder.definition.write_text(json.dumps(json.loads(folder.definition.read_text()) | {now[0]: now[1]}))
    with pytest.raises(UserError, match=said):
        folder.study()


@pytest.mark.parametrize("change", [("How much", "How many"), ("cpus_per_device = 1", "cpus_per_device = 2")])
def test_what_changes_no_result_may_change(tmp_path: Path, change: tuple[str, str]) -> None:
    claimed(tmp_path).claim(load(tmp_path, changed(change)))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("terms = 6", "terms = 7", "task.terms was 6 and is now 7"),
        ("[0, 1]", "[0]", "seeds was [0, 1] and is now [0]"),
        ("batch_size = 16", "batch_size = 32", "recipe.batch_size was 16 and is now 32"),
        ("{ terms = 8 }", "{ terms = 9 }", "data.eval_splits.longer.terms was 8 and is now 9"),
        ('kind = "asha"', 'kind = "none"', 'stop.kind was "asha" and is now "none"'),
    ],
)
def test_another_study_of_the_name_is_refused_with_the_difference(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    folder = claimed(tmp_path)
    before = folder.definition.read_bytes()
    with pytest.raises(UserError) as caught:
        folder.claim(load(tmp_path, changed((old, new))))
    assert said in str(caught.value)
    assert "--name" in str(caught.value)
    assert folder.definition.read_bytes() == before


def test_a_damaged_definition_is_a_mistake_to_mend(tmp_path: Path) -> None:
    study, folder = load(tmp_path), claimed(tmp_path)
    folder.definition.write_bytes(b'{"name": \xff')
    with pytest.raises(UserError, match=r"study\.json cannot be read"):
        folder.claim(study)


def test_a_folder_that_cannot_be_made_is_a_mistake_to_mend(tmp_path: Path) -> None:
    (tmp_path / "small").write_text("a file")
    with pytest.raises(UserError, match="SHOWHOW_HOME"):
        StudyFolder(tmp_path, "small").make()


def test_a_study_refused_before_it_began_leaves_its_name_free_and_what_is_not_ours_alone(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "small")
    folder.make()
    folder.claim(load(tmp_path))
    folder.release()
    assert not folder.path.exists()
    folder.make()
    (folder.path / "thesis.txt").write_text("mine")
    folder.release()
    assert [path.name for path in folder.path.iterdir()] == ["thesis.txt"]


def test_a_study_that_has_begun_is_not_released(tmp_path: Path) -> None:
    folder = claimed(tmp_path)
    folder.release()
    assert folder.definition.exists()


def test_a_study_that_never_started_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'no study "small".*None yet'):
        StudyFolder.existing(tmp_path, "small")
    folder = claimed(tmp_path)
    assert StudyFolder.existing(tmp_path, "small") == folder
    with pytest.raises(UserError, match='Did you mean "small"'):
        StudyFolder.existing(tmp_path, "smal")
    with pytest.raises(UserError, match='Did you mean "small"'):
        StudyFolder.existing(tmp_path, "search_spaces/small.toml")


def test_the_home_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHOWHOW_HOME", raising=False)
    assert home_folder() == tmp_path / "showhow-runs"
    monkeypatch.setenv("SHOWHOW_HOME", str(tmp_path / "x"))
    assert home_folder() == tmp_path / "x"
