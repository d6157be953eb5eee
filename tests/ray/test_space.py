"""Which runs are proposed, and in which order."""

from pathlib import Path

import pytest

from showhow.sections.stopping import NoStopping
from showhow.study.plan import planned_trials
from showhow.study.search_space import Grid
from showhow.study.study import Study
from showhow.sweep.arbiter import Arbiter
from showhow.sweep.proposer import Proposer, TreeParzen, run_key
from showhow.tracking.runs import StudyRecord, fold
from showhow.tracking.tracker import Reported, RunEnded, RunStarted

SEARCH = "\n[search.learning_rate]\nlog_uniform = [1e-4, 1e-2]\n"


@pytest.fixture
def study(tiny_file: Path, tmp_path: Path) -> Study:
    path = tmp_path / "search.toml"
    path.write_text(tiny_file.read_text().replace("learning_rate = 3e-3\n", "") + SEARCH)
    return Study.load(path, ["search.samples=3"])


def with_optuna(study: Study) -> Study:
    return study.model_copy(update={"search": study.search.model_copy(update={"algorithm": "optuna"})})


def finished(trial: str, seed: int, arm: str, learning_rate: float, accuracy: float) -> StudyRecord:
    """What an earlier session left, which finished one run."""
    key = run_key(trial, seed)
    start = RunStarted(key, trial, seed, arm, {"learning_rate": learning_rate}, {}, 1, 0.0)
    end = RunEnded(key, "finished", None, None, {}, 2.0)
    return fold([start, Reported(key, 800, {"validation/accuracy": accuracy}, 1.0), end])


def proposer_of(study: Study, record: StudyRecord | None = None) -> Proposer:
    return Proposer(study, Arbiter(NoStopping(), 2), record or StudyRecord())


def test_seeds_are_outermost_so_that_every_trial_gets_its_first_seed_early(study: Study) -> None:
    runs = list(proposer_of(study))
    assert [run.seed for run in runs] == [0] * 6 + [1] * 6
    assert len({run.key for run in runs}) == 12


def test_in_the_last_seed_the_trials_that_took_longest_go_first(study: Study) -> None:
    proposer = proposer_of(study)
    runs = iter(proposer)
    took = {"trial-000": 3.0, "trial-001": 1.0, "trial-002": 9.0, "trial-003": 2.0, "trial-004": 9.0}
    for _ in range(6):
        run = next(runs)
        proposer.learn(run.trial, 0.5, took.get(run.trial.name, 0.0))
    order = ["trial-002", "trial-004", "trial-000", "trial-003", "trial-001", "trial-005"]
    assert [run.trial.name for run in runs] == order


def test_runs_done_in_an_earlier_session_are_not_proposed_again(study: Study) -> None:
    before = finished("trial-001", 0, "long", 1e-3, 0.5)
    keys = {run.key for run in proposer_of(study, before)}
    assert run_key("trial-001", 0) not in keys
    assert len(keys) == 11


def test_the_other_seeds_of_a_stopped_trial_are_not_proposed(study: Study) -> None:
    arbiter = Arbiter(NoStopping(), 2)
    proposed = []
    for run in Proposer(study, arbiter, StudyRecord()):
        proposed.append(run.key)
        arbiter.stopped.add("trial-002")
    assert run_key("trial-002", 0) not in proposed
    assert run_key("trial-002", 1) not in proposed


def test_optuna_proposes_as_many_points_a_level_as_asked_and_all_seeds_of_each(study: Study) -> None:
    runs = list(proposer_of(with_optuna(study)))
    assert len(runs) == 12
    assert [run.seed for run in runs[:4]] == [0, 1, 0, 1]
    assert {run.trial.level.value for run in runs} == {"none", "long"}
    assert len({run.trial.recipe.learning_rate for run in runs}) == 6


def test_optuna_is_determined_by_the_study(study: Study) -> None:
    def rates() -> list[float]:
        proposer = proposer_of(with_optuna(study))
        found = []
        for run in proposer:
            found.append(run.trial.recipe.learning_rate)
            proposer.learn(run.trial, accuracy=run.trial.recipe.learning_rate)
        return found

    assert rates() == rates()


def test_optuna_resumes_with_the_points_of_an_earlier_session(study: Study) -> None:
    study = with_optuna(study)
    first = next(iter(proposer_of(study)))
    before = finished("trial-000", 0, "none", 0.00321, 0.5)
    runs = list(proposer_of(study, before))
    assert run_key("trial-000", 0) not in {run.key for run in runs}
    assert first.trial.recipe.learning_rate != 0.00321
    assert runs[0].key == run_key("trial-000", 1)
    assert runs[0].trial.recipe.learning_rate == 0.00321


def test_optuna_comes_to_prefer_what_did_well(study: Study) -> None:
    study = study.model_copy(update={"search": study.search.model_copy(update={"algorithm": "optuna", "samples": 25})})
    proposer = proposer_of(study)
    rates = []
    for run in proposer:
        if run.trial.level == "long" and run.seed == 0:
            rates.append(run.trial.recipe.learning_rate)
        distance = abs(run.trial.recipe.learning_rate - 5e-3)
        proposer.learn(run.trial, accuracy=1 - 100 * distance)
    late = [abs(rate - 5e-3) for rate in rates[12:]]
    early = [abs(rate - 5e-3) for rate in rates[:4]]
    assert sum(late) / len(late) < sum(early) / len(early)


def test_optuna_searches_the_axes_of_a_variant_in_its_arms_alone(study: Study) -> None:
    changes = {
        "method": {"mixup": {"kind": "sftmix"}},
        "search.method": {"grid": ["plain", "mixup"]},
        "search.method.mixup.alpha": {"uniform": [0.1, 0.9]},
        "search.algorithm": "optuna",
        "compare.by": ["method", "explanation"],
    }
    study = study.with_changes(changes)
    points = [run.trial.point for run in proposer_of(study) if run.seed == study.seeds[0]]
    assert len(points) == len(planned_trials(study))
    assert [("method.mixup.alpha" in point) for point in points] == [point["method"] == "mixup" for point in points]


def test_optuna_searches_each_arm_in_each_setting_by_itself_and_fixes_both(study: Study) -> None:
    study = with_optuna(study)
    axes = study.search.axes | {"batch_size": Grid(grid=(8, 16))}
    study = study.model_copy(update={"search": study.search.model_copy(update={"axes": axes})})
    tpe = TreeParzen(study)
    (none, long), setting = study.arms, {}
    first = tpe.propose(none, setting, "trial-000")
    tpe.learn(first, 0.9, is_last=True)
    assert first.point.keys() == {"explanation", "learning_rate", "batch_size"}
    assert (first.level, tpe.propose(long, setting, "trial-001").level) == ("none", "long")
    assert first.point == TreeParzen(study).propose(none, setting, "trial-000").point
