"""Laws of a study file's mistakes: each is answered with file, line, what is allowed and the nearest right name; no
text, however odd, gives anything but a study or a UserError."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from studies import TEXT, changed, complaint, line_of, load

from showhow.errors import UserError
from showhow.sections.data import Data, Evaluation
from showhow.sections.recipe import Recipe, ScratchModel
from showhow.sections.resources import Resources
from showhow.sections.stopping import Asha
from showhow.study.lines import key_lines
from showhow.study.source import Source, typed
from showhow.study.study import Study
from showhow.tasks.modular_sum import ModularSum

TOP = "name = "
LR = "learning_rate = { log_uniform = [1e-4, 1e-3] }"

# old text, new text, a part of the line that is to be named, what is to be said
ONE_MISTAKE = [
    # names that are not
    ("seeds", "sedes", "sedes", ['sedes: there is no such setting. Did you mean "seeds"?', "seeds: is missing"]),
    ("terms = 6", "tersm = 6", "tersm", ['task.tersm: there is no such setting. Did you mean "terms"?']),
    ("terms = 6", "TERMS = 6", "TERMS", ['Did you mean "terms"?']),
    ("eval_examples = 100", "eval_exmples = 100", "eval_exmples", ['Did you mean "eval_examples"?', "Allowed: train"]),
    ("layers = 2", "layer = 2", "layer =", ['model.layer: there is no such setting. Did you mean "layers"?']),
    ("batch_size = 16", "batchsize = 16", "batchsize", ['Did you mean "batch_size"?']),
    ("batch_size = 16", "validation_examples = 16", "validation_ex", ["It belongs in [evaluation]"]),
    ("seeds", "terms = 3\nseeds", "terms = 3", ["It belongs in [task]"]),
    ("samples = 2", "sampels = 2", "sampels", ['Did you mean "samples"?', "an axis is one of { grid = [...] }"]),
    ("every_examples", "every_example", "every_example", ['Did you mean "every_examples"?']),
    (
        'kind = "asha"',
        'kind = "asha"\ngoal_acc = 1',
        "goal_acc",
        ["stop.goal_acc: there is no such setting. Did you mean"],
    ),
    ("cpus_per_device", "cpu_per_device", "cpu_per_device", ['Did you mean "cpus_per_device"?']),
    ("[resources]", "[resourcse]", "[resourcse]", ['Did you mean "resources"?']),
    ("log_uniform", "log_unifrm", "log_unifrm", ['Did you mean "log_uniform"?']),
    (
        "learning_rate =",
        "learning_rte =",
        "learning_rte",
        ["search.learning_rte: nothing of this name", '"learning_rate"'],
    ),
    (LR, LR + "\ntask.styl = { grid = [1] }", "task.styl", ['Did you mean "task.style"?', "[task] has: terms"]),
    (LR, LR + "\nmodle.heads = { grid = [1] }", "modle", ['Did you mean "model.heads"?']),
    (LR, LR + '\ntask.kind = { grid = ["listops"] }', "task.kind", ["nothing of this name can be searched"]),
    (LR, LR + '\ntask.preset = { grid = ["a"] }', "task.preset", ["nothing of this name can be searched"]),
    ("longer = { terms = 8 }", "longer = { trems = 8 }", "longer", ["data.eval_splits.longer.trems", '"terms"']),
    # kinds
    ('kind = "modular_sum"', "", "[task]", ["task.kind: is missing. Allowed: modular_sum, listops"]),
    ('kind = "scratch"', "", "[model]", ["model.kind: is missing. Allowed: scratch, pretrained"]),
    ('kind = "asha"', "goal_accuracy = 0.9", "[stop]", ["stop.kind: is missing. Allowed: none, asha, median"]),
    ('"modular_sum"', '"modularsum"', '"modularsum"', ['task.kind: got "modularsum". Did you mean "modular_sum"?']),
    ('"scratch"', '"scrtch"', '"scrtch"', ['model.kind: got "scrtch". Did you mean "scratch"?']),
    ('"asha"', "3", "kind = 3", ["stop.kind: got", "Allowed: none, asha, median"]),
    # types
    ('"small"', "3", TOP, ["name: got 3, must be text, in quotes"]),
    ("terms = 6", 'terms = "6"', 'terms = "6"', ['task.terms: got "6", must be a whole number']),
    ("terms = 6", "terms = 6.0", "terms = 6.0", ["task.terms: got 6.0, must be a whole number"]),
    ("terms = 6", "terms = true", "terms = true", ["task.terms: got true, must be a whole number"]),
    ("terms = 8", 'terms = "8"', "eval_splits", ['data.eval_splits.longer.terms: got "8", must be a whole number']),
    ("2_000", '"many"', "train_examples", ['data.train_examples: got "many", must be a whole number']),
    ("batch_size = 16", "batch_size = 16.5", "batch_size", ["recipe.batch_size: got 16.5, must be a whole number"]),
    ("batch_size = 16", "batch_size = [16]", "batch_size", ["recipe.batch_size: got [16], must be a number, text"]),
    ("batch_size = 16", "batch_size = {}", "batch_size", ["recipe.batch_size: got {}, must be a number, text"]),
    (
        "cpus_per_device = 1",
        "gpus_per_device = true",
        "gpus_",
        ["resources.gpus_per_device: got true, must be a number"],
    ),
    ("samples = 2", "samples = false", "samples", ["search.samples: got false, must be a whole number"]),
    ("longer = { terms = 8 }", "longer = 8", "longer", ["data.eval_splits.longer: got 8, must be a section"]),
    ("seeds = [0, 1]", "seeds = 0", "seeds", ["seeds: got 0, must be a list"]),
    ("seeds = [0, 1]", 'seeds = ["0"]', "seeds", ['seeds[0]: got "0", must be a whole number']),
    ("[stop]\nkind", "[[stop]]\nkind", "[[stop]]", ["stop: got [", "must be a section (a table)"]),
    (
        '{ grid = ["none", "long"] }',
        '["none", "long"]',
        "explanation",
        ["search.explanation: got [", "an axis is one of"],
    ),
    ('["none", "long"]', '"none"', "explanation", ['search.explanation.grid: got "none", must be a list']),
    (
        '["none", "long"]',
        '[["none"], {}]',
        "explanation",
        ["grid[0]: got [", "grid[1]: got {}, must be a number, text"],
    ),
    ("[1e-4, 1e-3]", "[1e-4]", "learning_rate", ["search.learning_rate.log_uniform[1]: is missing"]),
    ("[1e-4, 1e-3]", '["a", "b"]', "learning_rate", ['log_uniform[0]: got "a", must be a number', "log_uniform[1]"]),
    ("{ log_uniform = [1e-4, 1e-3] }", "{}", "learning_rate", ["search.learning_rate: got {}, but an axis is one of"]),
    ('"How much?"', "2020-01-01", "question", ["question: got 2020-01-01, a date or time"]),
    ("terms = 6", "terms = 07:00:00", "terms = 07", ["task.terms: got 07:00:00, a date or time"]),
    # values
    ('"small"', '"a/b"', TOP, ['name: got "a/b"']),
    ('"small"', '"../up"', TOP, ['name: got "../up"']),
    ('"small"', '""', TOP, ['name: got ""']),
    ('"small"', '"datasets"', TOP, ['name: got "datasets"', "not datasets, tokenizers"]),
    ('"How much?"', '""', "question", ['question: got "", must not be empty']),
    ("[0, 1]", "[]", "seeds", ["seeds: got [], must not be empty"]),
    ("[0, 1]", "[1, 1]", "seeds", ["seeds: a seed is named twice"]),
    ("[0, 1]", "[0, -1]", "seeds", ["seeds[1]: got -1, must be at least 0"]),
    ("[0, 1]", "[\n  0,\n  -1,\n]", "seeds", ["seeds[1]: got -1, must be at least 0"]),
    ("terms = 6", "terms = 1", "terms = 1", ["task.terms: got 1, must be at least 2"]),
    ("terms = 6", "terms = 99999999999999999999", "terms = 9", ["task.terms: is out of range"]),
    ("terms = 6", f"terms = 0x{'f' * 5000}", "terms = 0x", ["task.terms: is out of range"]),
    ("terms = 8", "terms = 1", "longer", ["data.eval_splits.longer.terms: got 1, must be at least 2"]),
    ("longer =", "test =", "test =", ["data.eval_splits.test: a split is named with small letters"]),
    ("longer =", '"../x" =', '"../x"', ["a split is named with small letters"]),
    ("2_000", "0", "train_examples", ["data.train_examples: got 0, must be at least 1"]),
    ("2_000", "-5", "train_examples", ["data.train_examples: got -5, must be at least 1"]),
    ("2_000", "1_000_000_000", "train_examples", ["1,000,000,000 different questions", "800,000 there (80% of all)"]),
    ("= 100\n", "= 900_000\n", "eval_examples", ["data.eval_examples: 900,000 different questions wanted"]),
    ("= 100\n", "= 100\nmax_dropped_share = 1.5\n", "max_dropped", ["got 1.5, must be at most 1"]),
    ("= 100\n", '= 100\ncontrol_length = "none"\n', "control_length", ['"none" has no length to copy']),
    ("= 100\n", '= 100\ncontrol_length = "lng"\n', "control_length", ["must be one of: none", 'Did you mean "long"?']),
    ("hidden_size = 64", "hidden_size = 65", "hidden_size", ["model.hidden_size: got 65, which cannot be split"]),
    ('"llama"', '"lama"', "architecture", ['got "lama", must be one of: llama, t5. Did you mean "llama"?']),
    ("batch_size = 16", "batch_size = 0", "batch_size", ["recipe.batch_size: got 0, must be at least 1"]),
    ("1_600", "8", "max_examples", ["recipe.max_examples: got 8, which is less than one batch"]),
    ("1_600", "1_600\nwarmup_examples = 1600", "warmup", ["recipe.warmup_examples: got 1600, which leaves nothing"]),
    ("1_600", "1_600\nmicro_batch_size = 5", "micro_batch", ["16 is not a multiple of micro_batch_size = 5"]),
    (
        "1_600",
        "1_600\ngradient_clip = inf",
        "gradient_clip",
        ["recipe.gradient_clip: got inf, must be a finite number"],
    ),
    ("1_600", "1_600\nweight_decay = nan", "weight_decay", ["recipe.weight_decay: got nan, must be a finite number"]),
    ("1_600", '1_600\nschedule = "cosin"', "schedule", ["constant, linear, cosine", 'Did you mean "cosine"?']),
    (
        "max_examples = 1_600",
        "",
        "[recipe]",
        ["recipe.max_examples: is missing: set max_examples = ... in [recipe], or"],
    ),
    (LR, "", "[recipe]", ["recipe.learning_rate: is missing: set learning_rate = ... in [recipe], or search it"]),
    ('["none", "long"]', "[]", "explanation", ["search.explanation.grid: got [], must not be empty"]),
    ('["none", "long"]', '["none", "none"]', "explanation", ['search.explanation.grid: names "none" twice']),
    ('["none", "long"]', '["none", "lonng"]', "explanation", ['"lonng" is not a level. Did you mean "long"? Levels']),
    ('["none", "long"]', "[1]", "explanation", ["search.explanation: 1 is not a level"]),
    ('grid = ["none", "long"]', "uniform = [0, 1]", "explanation", ["levels are compared one by one"]),
    ('explanation = { grid = ["none", "long"] }', "", "[search]", ["search.explanation: is missing: write"]),
    ("[1e-4, 1e-3]", "[1e-3, 1e-4]", "learning_rate", ["the bounds must be finite and increase"]),
    ("[1e-4, 1e-3]", "[0, 1e-3]", "learning_rate", ["log_uniform needs bounds above 0"]),
    ("[1e-4, 1e-3]", "[1e-4, inf]", "learning_rate", ["log_uniform[1]: got inf, must be a finite number"]),
    ("[1e-4, 1e-3]", "[1e-4, 2.0]", "learning_rate", ["search.learning_rate: got 2.0, must be at most 1"]),
    ("samples = 2", "samples = 0", "samples", ["search.samples: got 0, must be at least 1"]),
    ("samples = 2", "samples = 1_000_000_000", "samples", ["makes 2,000,000,000 trials", "at most 10,000"]),
    (
        LR,
        LR + "\nbatch_size = { grid = [16, 32] }",
        "batch_size = {",
        ["batch_size is both searched and set in [recipe]"],
    ),
    (LR, LR + "\ntask.terms = { grid = [6] }", "task.terms", ["terms is both searched and set in [task]"]),
    (
        LR,
        LR + "\nrecipe.learning_rate = { grid = [0.1] }",
        "learning_rate = { log",
        ["learning_rate: is searched twice"],
    ),
    (LR, LR + '\ntask.style = { grid = ["equation", 3] }', "task.style", ["search.task.style: got 3, must be one of"]),
    (LR, LR + "\nbeta_1 = { grid = [0.9, true] }", "beta_1", ["search.beta_1: got true, must be a number"]),
    (LR, LR + "\nbeta_1 = { grid = [0.9, 1.0] }", "beta_1", ["search.beta_1: got 1.0, must be below 1"]),
    (LR, LR + "\nwarmup_examples = { integers = [0, 1_600] }", "warmup", ["search.warmup_examples: got 1600, which"]),
    ("every_examples = 160", "every_examples = 8", "every_examples", ["got 8, must be at least one batch (16)"]),
    ("every_examples = 160", "every_examples = 1700", "every_examples", ["at most max_examples (1,600)"]),
    ("every_examples = 160", "validation_examples = 101", "validation_", ["got 101, but eval_examples = 100"]),
    ("2_000", "15", "train_examples", ["data.train_examples: 15 do not fill one batch of 16"]),
    (
        'kind = "asha"',
        'kind = "asha"\nmin_seeds = 3',
        "min_seeds",
        ["stop.min_seeds: got 3, but the study has 2 seeds"],
    ),
    ('kind = "asha"', 'kind = "asha"\ngrace = 1.0', "grace", ["stop.grace: got 1.0, must be below 1"]),
    (
        "cpus_per_device = 1",
        "cpus_per_device = 0",
        "cpus_per",
        ["resources.cpus_per_device: got 0, must be at least 1"],
    ),
    (
        "cpus_per_device = 1",
        "gpus_per_device = -0.5",
        "gpus_per",
        ["resources.gpus_per_device: got -0.5, must be at least"],
    ),
    # no TOML
    ("terms = 6", "terms = ", "terms = \n", ["is not valid TOML: this is not a value (text needs quotes) at column"]),
    ("terms = 6", "terms = none", "terms = none", ["is not valid TOML: this is not a value"]),
    ("terms = 6", "terms 6", "terms 6", ["is not valid TOML"]),
    ("terms = 6", "terms = 6\nterms = 8", "terms = 8\n", ["is not valid TOML: this key is set twice"]),
    ("[data]", "[task]", "[task]\ntrain", ["is not valid TOML"]),
]


@pytest.mark.parametrize(("old", "new", "place", "said"), ONE_MISTAKE)
def test_a_mistake_is_answered_with_its_line_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, place: str, said: list[str]
) -> None:
    text = changed((old, new))
    answer = complaint(tmp_path, text)
    assert f"study.toml:{line_of(text, place)}: " in answer
    for part in said:
        assert part in answer


def test_all_mistakes_are_answered_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = changed(
        ("seeds = [0, 1]", 'seeds = ["a", -1]'),
        ("terms = 6", "tersm = 6"),
        ("layers = 2", 'layers = "two"'),
        ("batch_size = 16", "batch_size = 0\nbeta_1 = 2"),
        ("samples = 2", "samples = 0"),
        ('kind = "asha"', 'kind = "ashes"'),
    )
    lines = complaint(tmp_path, text).split("\n")
    wrong = ["seeds[0]", "seeds[1]", "task.tersm", "model.layers", "recipe.batch_size", "recipe.beta_1"]
    assert [line.split(": ")[1] for line in lines] == [*wrong, "search.samples", "stop.kind"]
    assert [int(line.split(":")[1]) for line in lines] == sorted(int(line.split(":")[1]) for line in lines)


def test_all_wrong_values_of_an_axis_are_named_at_it(tmp_path: Path) -> None:
    text = changed(("batch_size = 16\n", ""), (LR, LR + '\nbatch_size = { grid = ["64", true, 16, 3000] }'))
    answer = complaint(tmp_path, text).split("\n")
    assert all(line.startswith(f"study.toml:{line_of(text, 'batch_size')}: search.batch_size: ") for line in answer)
    assert [part in "\n".join(answer) for part in ('"64"', "true", "16,", "3000")] == [True, True, False, True]


def test_packed_batches_are_refused_for_an_encoder_and_decoder(tmp_path: Path) -> None:
    text = changed(('"llama"', '"t5"'), ("batch_size = 16", 'batch_size = 16\nbatching = "packed"'))
    answer = complaint(tmp_path, text)
    assert answer.startswith(f"study.toml:{line_of(text, 'batching')}: recipe.batching: ")
    assert load(tmp_path, text.replace("packed", "grouped")).recipe["batching"] == "grouped"


@pytest.mark.parametrize("setting", ["tie_embeddings = false", "rope_theta = 30.0", "initializer_range = 0.1"])
def test_what_has_no_effect_in_a_t5_is_refused(tmp_path: Path, setting: str) -> None:
    assert load(tmp_path, changed(("layers = 2", f"layers = 2\n{setting}")))
    text = changed(('"llama"', '"t5"'), ("layers = 2", f"layers = 2\n{setting}"))
    answer = complaint(tmp_path, text)
    assert answer.startswith(f"study.toml:{line_of(text, setting)}: model.{setting.split()[0]}: is a setting of llama")


def test_fields_of_another_kind_of_model_are_unknown(tmp_path: Path) -> None:
    answer = complaint(tmp_path, changed(("layers = 2", 'layers = 2\nname = "x"')))
    assert "model.name: there is no such setting. Allowed: kind, architecture" in answer


WRITINGS = {
    "windows": TEXT.replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + TEXT,
    "quoted keys": TEXT.replace("batch_size =", '"batch_size" =').replace("[data]", '["data"]'),
    "literal keys": TEXT.replace("batch_size =", "'batch_size' =").replace("[data]", "[ 'data' ]"),
    "dotted": TEXT.replace('[stop]\nkind = "asha"', "").replace("[task]", 'stop.kind = "asha"\n[task]'),
    "inline": TEXT.replace('[stop]\nkind = "asha"', "").replace("[task]", 'stop = { kind = "asha" }\n[task]'),
    "list over lines": TEXT.replace('["none", "long"]', '[\n  "none", # = ]\n\n  "long",\n]'),
    "long text": TEXT.replace('"How much?"', '"""\n[recipe]\nbatch_size = 3 \\""" "\n"""'),
    "literal long text": TEXT.replace('"How much?"', "'''\n[recipe]\nbatch_size = 3\n'''"),
    "comments": TEXT.replace("[recipe]", '# [recipe]\n# batch_size = "\n[recipe] # [data]'),
    "no blanks": TEXT.replace(" = ", "="),
    "more blanks": TEXT.replace(" = ", "\t =  ").replace("[recipe]", "  [ recipe ]  "),
}


@pytest.mark.parametrize("text", WRITINGS.values(), ids=WRITINGS)
def test_however_a_study_is_written_it_means_the_same_and_lines_are_right(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text).model_copy(update={"question": "How much?"}) == load(tmp_path)
    wrong = text.replace("= 1_600", "= 3").replace("=1_600", "=3").replace("=  1_600", "=  3")
    number = wrong[: wrong.rindex("max_examples")].count("\n") + 1
    assert complaint(tmp_path, wrong).startswith(f"study.toml:{number}: recipe.max_examples: got 3")


def test_lines_are_known_of_dotted_inline_and_nested_keys() -> None:
    text = (
        'a.b."c.d" = 1\n[x]\ny = { z = [\n  { q = 1 },\n], w.v = "}" }\n[[t]]\nu = 1\n[x.k]\n  l = [1, [2,\n 3]]\nm = 1'
    )
    assert tomllib.loads(text)
    lines = key_lines(text)
    expected = {"a": 1, "a.b": 1, "x": 2, "x.y": 3, "x.y.z": 3, "x.y.w": 5, "x.y.w.v": 5, "t": 6, "t.u": 7, "x.k.m": 11}
    assert {key: lines[key] for key in expected} == expected
    assert lines["x.k.l"] == 9


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe", "study.toml:1: is not UTF-8 text"),
        (b'name = "a"\nquestion = "\xe9"', "study.toml:2: is not UTF-8 text"),
        (b"a\0b = 1", "study.toml:1: is not valid TOML"),
        (b"x" * 1_000_001, "is larger than 1,000,000 bytes"),
        (b"name = " + b"[" * 5_000 + b"]" * 5_000, "is nested too deeply"),
        (b"name = " + b"[" * 90 + b"]" * 90, "is nested too deeply"),
        (b"name" + b".a" * 3_000 + b" = 1", "is nested too deeply"),
        (b"name = " + b"9" * 5_000, "cannot be read"),
        (b'name = """\nx', "study.toml:2: is not valid TOML: Unterminated string"),
    ],
)
def test_what_is_no_study_at_all_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "study.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said.replace(".", r"\.")):
        Study.load(path)


def test_an_empty_file_is_told_all_that_a_study_needs(tmp_path: Path) -> None:
    answer = complaint(tmp_path, "")
    needed = [name for name, field in Study.model_fields.items() if field.is_required()]
    assert [line.split(": ")[1] for line in answer.split("\n")] == needed
    assert "write a section [recipe] with learning_rate" in answer


def test_a_missing_file_is_answered_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "quickstart.toml").write_text(TEXT)
    with pytest.raises(UserError, match=r'no such file\. Did you mean ".*quickstart\.toml"'):
        Study.load(tmp_path / "quikstart.toml")
    with pytest.raises(UserError, match="Is a directory"):
        Study.load(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        Study.load(tmp_path / "quick\0start.toml")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("recipe.batch_size", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("recipe..batch_size=3", "write it as key=value"),
        ("recipe.batch_size=sixteen", 'recipe.batch_size: got "sixteen", must be a whole number'),
        ('recipe.batch_size="16"', 'recipe.batch_size: got "16", must be a whole number'),
        ("recipe.batch_size=", 'recipe.batch_size: got ""'),
        ("recipe.batch_size=16\nmax_examples=3", "recipe.batch_size: got"),
        ("recipe.bach_size=16", 'Did you mean "batch_size"?'),
        ("seeds.0=3", "seeds is a value and not a section"),
        ("task=3", "task: got 3, must be a section"),
        ("name=2024", "name: got 2024, must be text"),
        ("seeds=[2, 2]", "a seed is named twice"),
        ("search.learning_rate=0.1", "an axis is one of"),
        ("question=\udcff", "is not UTF-8 text"),
        ("a.\udcff=1", "is not UTF-8 text"),
        ("batch_size=3", "It belongs in [recipe] or [evaluation]"),
    ],
)
def test_a_wrong_override_is_named_as_it_was_typed(tmp_path: Path, setting: str, said: str) -> None:
    answer = complaint(tmp_path, TEXT, setting)
    assert answer.startswith(f"--set {setting}: ")
    assert said in answer


def test_a_fault_beside_an_override_still_has_its_line(tmp_path: Path) -> None:
    text = changed(("layers = 2", "layers = 0"))
    answer = complaint(tmp_path, text, "recipe.batch_size=0").split("\n")
    assert [line.split(": ")[0] for line in answer] == [
        "--set recipe.batch_size=0",
        f"study.toml:{line_of(text, 'layers')}",
    ]


def test_a_name_is_text_whatever_it_looks_like(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(TEXT)
    assert Study.load(path, name="2024").name == "2024"
    with pytest.raises(UserError, match=r'^--name a/b: name: got "a/b"'):
        Study.load(path, name="a/b")


QUIET = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SCALARS = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(max_size=8),
    st.sampled_from(["none", "asha", "llama", "listops"]),
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


def toml(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{toml(str(key))} = {toml(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
        case bool():
            return str(value).lower()
        case _:
            return repr(value)


def paths(table: dict[str, Any]) -> list[tuple[str, ...]]:
    inner = [(key, *path) for key, value in table.items() if isinstance(value, dict) for path in paths(value)]
    return [(key,) for key in table] + inner


def study_or_complaint(path: Path) -> Study | str:
    try:
        return Study.load(path)
    except UserError as error:
        return str(error)


VALUES = tomllib.loads(TEXT)


@QUIET
@given(st.sampled_from(paths(VALUES)), ANYTHING, st.none() | st.text(max_size=6) | st.sampled_from(["kind", "seed"]))
def test_no_value_anywhere_gives_anything_but_a_study_or_a_user_error(
    tmp_path: Path, place: tuple[str, ...], value: Any, beside: str | None
) -> None:
    values = json.loads(json.dumps(VALUES))
    table = values
    for part in place[:-1]:
        table = table[part]
    table[place[-1] if beside is None else beside] = value
    path = tmp_path / "study.toml"
    path.write_text("\n".join(f"{toml(key)} = {toml(inner)}" for key, inner in values.items()), encoding="utf-8")
    study = study_or_complaint(path)
    if isinstance(study, Study):
        assert Study.model_validate_json(json.dumps(study.definition()), strict=True) == study
    else:
        assert study.startswith(str(path))


@QUIET
@given(st.text(max_size=200))
def test_no_text_gives_anything_but_a_user_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(UserError):
        Study.load(path)


@QUIET
@given(st.integers(0, len(TEXT) - 1), st.integers(0, 12), st.text(alphabet="[]{}=.\"\n#,'x1 ", max_size=4))
def test_no_damage_to_a_study_gives_a_traceback(tmp_path: Path, start: int, length: int, instead: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(TEXT[:start] + instead + TEXT[start + length :], encoding="utf-8")
    answer = study_or_complaint(path)
    assert isinstance(answer, Study) or answer.startswith(str(path))


SECTIONS = {
    "task": ModularSum,
    "data": Data,
    "model": ScratchModel,
    "recipe": Recipe,
    "evaluation": Evaluation,
    "stop": Asha,
    "resources": Resources,
}
# a slip in beta_1 is as near to beta_2
FIELDS = [(s, f) for s, model in SECTIONS.items() for f in model.model_fields if f != "kind" and "beta" not in f]


@QUIET
@given(st.sampled_from(FIELDS), st.data())
def test_a_slip_of_the_finger_is_answered_with_the_right_name(
    tmp_path: Path, field: tuple[str, str], data: st.DataObject
) -> None:
    section, name = field
    at = data.draw(st.integers(1, len(name) - 2), label="at")
    slips = [
        name[:at] + name[at + 1 :],
        name[:at] + "x" + name[at:],
        name[:at] + name[at + 1] + name[at] + name[at + 2 :],
    ]
    slip = data.draw(st.sampled_from([slip for slip in slips if slip != name]), label="slip")
    answer = complaint(tmp_path, changed((f"[{section}]\n", f"[{section}]\n{slip} = 1\n")))
    assert f'{section}.{slip}: there is no such setting. Did you mean "{name}"?' in answer


@QUIET
@given(SCALARS | st.lists(SCALARS, max_size=3))
def test_an_override_is_typed_as_in_the_file(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "study.toml"
    path.write_text(f"a.b = {toml(value)}", encoding="utf-8")
    try:
        written = Source.read(path).values
    except UserError:
        return  # a number beyond 64 bits
    path.write_text("a.b = 0", encoding="utf-8")
    assert repr(Source.read(path, [f"a.b={toml(value)}"]).values) == repr(written)


@given(st.from_regex(r"[A-Za-z_][A-Za-z_/.-]*", fullmatch=True))
def test_a_bare_word_is_a_text(word: str) -> None:
    assert typed(word) == (word if word not in ("true", "false", "inf", "nan") else typed(word))
