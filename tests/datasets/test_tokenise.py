"""Laws of tokenisation: nothing lost, nothing cut, nothing counted wrongly, and steps that can be told apart."""

import json
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from showhow.datasets.examples import to_example
from showhow.datasets.generate import generate
from showhow.datasets.manifest import Manifest
from showhow.datasets.tokenise import Lengths, read_lengths, tokenise
from showhow.datasets.tokenizer import SPARE_SEPARATOR, StudyTokenizer, pretrained_tokenizer, symbol_tokenizer
from showhow.errors import TrialError, UserError
from showhow.sections.dataset_spec import TRAIN, DatasetSpec
from showhow.tasks import TASKS, task_named
from showhow.tasks.base import Task
from showhow.tasks.explain import Level
from showhow.tasks.grading import grade
from showhow.training.tokens import TokenFile

PAD, END, UNKNOWN = SPECIAL = ["<pad>", "</s>", "<unk>"]
NAMES = [name for kind, task in TASKS.items() for name in (kind, *task.presets)]
TASK_LIST: list[Task] = [task_named(name, {}) for name in NAMES]
TASK_LIST += [
    task_named(kind, {"style": style})
    for kind, task in TASKS.items()
    for style in get_args(task.model_fields["style"].annotation)
]
every_task = pytest.mark.parametrize("task", TASK_LIST, ids=lambda task: f"{task.kind}-{task.style}-{task.modulus}")


def drawn_texts(task: Task, level: Level, count: int = 40) -> list[str]:
    rng = random.Random(1)
    problems = [task.draw(rng) for _ in range(count)]
    targets = [to_example(task, level, Level.LONG, problem, problems[0]).target for problem in problems]
    return targets + [problem.question for problem in problems]


TEXTS = [text for task in TASK_LIST for level in Level for text in drawn_texts(task, level)]


@cache
def words_of(*tasks: Task) -> StudyTokenizer:
    return symbol_tokenizer(list(tasks))


def dataset(home: Path, task: Task, level: Level, examples: int = 60, split: str = TRAIN) -> Path:
    of = DatasetSpec(task=task, level=level, split=split, examples=examples, seed=0, control_length=Level.LONG)
    return generate(of, home, on_cluster=False)


def encoded(words: StudyTokenizer, texts: list[str], as_prompts: bool = False) -> list[list[int]]:
    rows = words.encode(pa.array(texts, pa.string()), as_prompts)
    assert len(rows.lengths) == len(texts)
    return [ids.tolist() for ids in np.split(rows.ids, np.cumsum(rows.lengths)[:-1])]


def tokens(home: Path, words: StudyTokenizer, task: Task, level: Level, split: str = TRAIN) -> TokenFile:
    return TokenFile(tokenise(dataset(home, task, level, 20, split), words, 4096, 0.0))


def byte_level_bpe(folder: Path) -> Path:
    """As GPT-2's: bytes, one token for both padding and end."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=500, special_tokens=["</s>"], initial_alphabet=alphabet)
    )
    return saved(folder, tokenizer, {"eos_token": {"content": "</s>"}})


def t5_like_unigram(folder: Path) -> Path:
    """As T5's: line breaks and repeated blanks become one blank, a question ends with the end token."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\s+"), " "), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        [*TEXTS, "; ;"], trainers.UnigramTrainer(vocab_size=400, special_tokens=SPECIAL, unk_token=UNKNOWN)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
    )
    return saved(folder, tokenizer, {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"})


def saved(folder: Path, tokenizer: Tokenizer, settings: dict[str, Any]) -> Path:
    folder.mkdir()
    tokenizer.enable_truncation(16)  # as some published ones: it must not cut our texts
    tokenizer.enable_padding()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tests that only read datasets share them."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StudyTokenizer]:
    home = tmp_path_factory.mktemp("models")
    made: list[Callable[[Path], Path]] = [byte_level_bpe, t5_like_unigram]
    return {make.__name__: pretrained_tokenizer(str(make(home / make.__name__))) for make in made}


@every_task
@pytest.mark.parametrize("level", Level)
def test_decoding_what_was_encoded_gives_every_text_back(task: Task, level: Level) -> None:
    words = words_of(task)
    texts = drawn_texts(task, level)
    ids = encoded(words, texts)
    assert words.tokenizer.decode_batch(ids, skip_special_tokens=False) == texts
    assert ids == [encoding.ids for encoding in words.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


@given(st.lists(st.text("019 aZ_\n\t+=:.[é中٣½\u00a0", max_size=12), min_size=1, max_size=6))
@settings(deadline=None, max_examples=300)
def test_texts_are_split_as_the_tokenizer_library_does_whatever_stands_beside_them(texts: list[str]) -> None:
    words = words_of(TASK_LIST[1], TASK_LIST[-1])
    expected = [found.ids for found in words.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    assert encoded(words, texts) == expected
    beside = pa.array(["7 a ", *texts, " + 3"], pa.string()).slice(1, len(texts))
    assert words.encode(beside).ids.tolist() == [token for ids in expected for token in ids]
    plain = [text for text in texts if text.isascii()]
    assert not plain or encoded(words, plain) == [
        ids for ids, text in zip(expected, texts, strict=True) if text in plain
    ]


@every_task
def test_every_number_is_one_token_wherever_it_stands(task: Task) -> None:
    words = words_of(task)
    for number in map(str, range(task.largest_number + 1)):
        (token,) = encoded(words, [number])[0]
        assert words.tokenizer.id_to_token(token) == number
        assert encoded(words, [f"{number}+{number}="])[0].count(token) == 2
        assert encoded(words, [f"answer {number}", f", {number}]"])[0][-1] == token


@every_task
def test_no_task_has_a_step_with_the_spare_separator(task: Task) -> None:
    assert not any(SPARE_SEPARATOR.strip() in text for level in Level for text in drawn_texts(task, level))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [Level.MEDIUM, Level.LONG, Level.SHUFFLED, Level.FILLER])
def test_harder_evaluation_splits_hold_no_unknown_symbol(home: Path, name: str, level: Level) -> None:
    task = task_named(name, {})
    harder = task.changed({"terms": 11, "below": 50} if name == "modular_sum" else {"max_length": 90, "largest": 35})
    words = words_of(task, harder)
    for split, drawn_from in ((TRAIN, task), ("harder", harder)):
        file = tokens(home, words, drawn_from, level, split)
        assert len(file) == 20
        assert file.special.vocabulary > int(file.prompt(0).max())


def test_a_symbol_that_the_tokenizer_does_not_know_is_named(
    tmp_path: Path, pretrained: dict[str, StudyTokenizer]
) -> None:
    words = words_of(task_named("modular_sum", {"below": 5, "modulus": 5}))
    folder = dataset(tmp_path, task_named("modular_sum", {"style": "equation"}), Level.LONG)
    with pytest.raises(UserError, match=rf"{folder}.*does not know a symbol of '\d"):
        tokenise(folder, words, 4096, 0.0)
    assert not list(folder.glob("*arrow*"))


@pytest.mark.parametrize("name", ["symbols", "byte_level_bpe", "t5_like_unigram"])
@pytest.mark.parametrize("task", [TASK_LIST[0], TASK_LIST[1], task_named("modular_sum", {"style": "sentence"})])
def test_filler_has_exactly_the_tokens_of_the_explanation_and_says_nothing(
    home: Path, pretrained: dict[str, StudyTokenizer], name: str, task: Task
) -> None:
    words = words_of(task) if name == "symbols" else pretrained[name]
    real, filler = (tokens(home, words, task, level) for level in (Level.LONG, Level.FILLER))
    assert filler.target_lengths.tolist() == real.target_lengths.tolist()
    for row in range(len(filler)):
        assert filler.prompt(row).tolist() == real.prompt(row).tolist()
        said, true = (
            words.tokenizer.decode(file.target(row).tolist(), skip_special_tokens=True) for file in (filler, real)
        )
        assert grade(said, true, Level.FILLER, filler.layout).answer_right
        assert set(said.partition(task.text_format.answer_prefix)[0]) <= {".", " "}


@every_task
@pytest.mark.parametrize("name", ["byte_level_bpe", "t5_like_unigram"])
def test_replies_in_a_pretrained_tokenizers_tokens_can_be_told_into_steps(
    home: Path, pretrained: dict[str, StudyTokenizer], name: str, task: Task
) -> None:
    words = pretrained[name]
    for level in (Level.SHORT, Level.LONG, Level.SHUFFLED):
        file = tokens(home, words, task, level)
        replies = words.tokenizer.decode_batch([file.target(row).tolist() for row in range(20)])
        assert replies == file.texts("target", 20)
        assert all(grade(reply, reply, Level.LONG, file.layout).steps_right == 1 for reply in replies)
        tampered = [reply.replace("1", "2", 1) for reply in replies]
        graded = [grade(one, other, Level.LONG, file.layout) for one, other in zip(tampered, replies, strict=True)]
        if task.text_format.step_separator == "\n" and level is Level.LONG:
            assert file.layout.step_separator == ("; " if name == "t5_like_unigram" else "\n")
        assert any(one.steps_right and 0 < one.steps_right < 1 for one in graded)


def test_questions_get_what_a_pretrained_tokenizer_puts_around_them_and_replies_one_end(
    tmp_path: Path, pretrained: dict[str, StudyTokenizer]
) -> None:
    file = tokens(tmp_path, pretrained["t5_like_unigram"], TASK_LIST[0], Level.SHORT)
    for row in range(len(file)):
        assert file.prompt(row).tolist().count(file.special.end) == 1 == (file.prompt(row)[-1] == file.special.end)
        assert file.target(row).tolist().count(file.special.end) == 1 == (file.target(row)[-1] == file.special.end)


def test_a_tokenizer_that_loses_the_answer_prefix_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({UNKNOWN: 0, END: 1, "final": 2, "answer": 3, ":": 4}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    words = pretrained_tokenizer(str(saved(tmp_path / "model", tokenizer, {"eos_token": "</s>"})))
    with pytest.raises(UserError, match="steps and answer could not be told apart"):
        tokens(tmp_path, words, task_named("listops", {}), Level.LONG)


def test_rows_too_long_are_dropped_whole_and_counted(tmp_path: Path) -> None:
    task = task_named("listops", {})
    words = words_of(task)
    folder = dataset(tmp_path, task, Level.LONG, 300)
    every = TokenFile(tokenise(folder, words, 4096, 0.0))
    lengths = every.prompt_lengths + every.target_lengths
    limit = int(np.quantile(lengths, 0.9))
    fits = [row for row in range(300) if lengths[row] <= limit]
    share = (300 - len(fits)) / 300
    path = tokenise(folder, words, limit, share)
    assert read_lengths(path) == Lengths(len(fits), 300 - len(fits), int(lengths.max()))
    kept = TokenFile(path)
    assert [kept.target(row).tolist() for row in range(len(kept))] == [every.target(row).tolist() for row in fits]
    assert kept.texts("question", 300) == [every.texts("question", 300)[row] for row in fits]
    decoded = [words.tokenizer.decode(kept.target(row).tolist()) for row in range(len(kept))]
    assert decoded == kept.texts("target", 300)
    for _ in range(2):  # also when the file is there already
        with pytest.raises(UserError, match=rf"{300 - len(fits)} .*max_tokens = {limit} .*{lengths.max()}\), and"):
            tokenise(folder, words, limit, share - 0.01)


@pytest.mark.parametrize("split", ["validation", "test", "longer"])
def test_a_question_of_an_evaluation_is_never_dropped(tmp_path: Path, split: str) -> None:
    task = task_named("listops", {})
    words = words_of(task)
    folder = dataset(tmp_path, task, Level.LONG, split=split)
    every = TokenFile(tokenise(folder, words, 4096, 0.0))
    longest = int((every.prompt_lengths + every.target_lengths).max())
    assert len(TokenFile(tokenise(folder, words, longest, 0.0))) == 60
    with pytest.raises(UserError, match=f"{split} rows at level long.*max_tokens = {longest - 1} .*raise it"):
        tokenise(folder, words, longest - 1, 1.0)


@pytest.mark.parametrize("split", ["train", "test"])
def test_where_the_model_has_no_more_positions_nobody_is_told_to_raise_max_tokens(tmp_path: Path, split: str) -> None:
    task = task_named("listops", {})
    words, folder = words_of(task), dataset(tmp_path, task, Level.LONG, split=split)
    every = TokenFile(tokenise(folder, words, 4096, 0.0))
    longest = int((every.prompt_lengths + every.target_lengths).max())
    with pytest.raises(UserError, match=rf"raise it to {longest}\b"):
        tokenise(folder, words, longest - 1, 0.0, room=longest)
    with pytest.raises(UserError, match=f"has positions for {longest - 1}, so raising it would not help") as caught:
        tokenise(folder, words, longest - 1, 0.0, room=longest - 1)
    assert "raise it to" not in str(caught.value)


def test_a_dataset_of_which_nothing_is_short_enough_is_an_error_whatever_may_be_dropped(tmp_path: Path) -> None:
    task = TASK_LIST[0]
    with pytest.raises(UserError, match=r"60 \(100.0%\)"):
        tokenise(dataset(tmp_path, task, Level.LONG), words_of(task), 5, 1.0)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "tokenizer.json"),
        ({"tokenizer.json": "no JSON", "tokenizer_config.json": "{}"}, "cannot be read"),
        ({"tokenizer.json": Tokenizer(models.BPE()).to_str()}, "tokenizer_config.json"),
        ({"tokenizer.json": Tokenizer(models.BPE()).to_str(), "tokenizer_config.json": "{}"}, "no end token"),
    ],
)
def test_a_pretrained_folder_without_a_usable_tokenizer_is_a_users_error(
    tmp_path: Path, files: dict[str, str], said: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said) as error:
        pretrained_tokenizer(str(tmp_path))
    assert str(tmp_path) in str(error.value)


def test_a_tokenizer_survives_being_stored_and_its_name_tells_all_that_matters(
    tmp_path: Path, pretrained: dict[str, StudyTokenizer]
) -> None:
    for index, words in enumerate([*pretrained.values(), symbol_tokenizer(TASK_LIST)]):
        path = tmp_path / str(index) / "tokenizer.json"
        words.save(path)
        again = StudyTokenizer.read(path)
        assert (again.ids, again.by_symbols, again.fingerprint) == (words.ids, words.by_symbols, words.fingerprint)
        assert encoded(again, TEXTS[:50], as_prompts=True) == encoded(words, TEXTS[:50], as_prompts=True)
        assert len(list(path.parent.iterdir())) == 2
        other_end = StudyTokenizer(words.tokenizer, replace(words.ids, end=words.ids.end + 1), words.by_symbols)
        assert other_end.fingerprint != words.fingerprint
    assert symbol_tokenizer(TASK_LIST[:2]).fingerprint == symbol_tokenizer(TASK_LIST[:2]).fingerprint


def test_an_open_tokenised_dataset_takes_16_bytes_a_row_and_no_token_is_copied(tmp_path: Path) -> None:
    task = TASK_LIST[0]
    folder = dataset(tmp_path, task, Level.LONG, 20_000)
    path = tokenise(folder, words_of(task), 4096, 0.0)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    file = TokenFile(path)
    taken = tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - before
    tracemalloc.stop()
    rows = [file.prompt(row) for row in range(100)] + [file.target(row) for row in range(100)]
    assert int(file.target_lengths.sum()) > 500_000
    assert taken < 16 * 20_000 + 50_000
    assert not any(row.flags.owndata or row.flags.writeable for row in rows)


def test_a_file_of_other_batches_or_none_reads_the_same(tmp_path: Path) -> None:
    task = TASK_LIST[0]
    path = tokenise(dataset(tmp_path, task, Level.LONG), words_of(task), 4096, 0.0)
    with pa.memory_map(str(path)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
        for rows, batch in ((60, 7), (0, 7)):
            with pa.OSFile(str(tmp_path / "other"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
                out.write_table(table.slice(0, rows), max_chunksize=batch)
            one, other = TokenFile(path), TokenFile(tmp_path / "other")
            assert len(other) == rows
            for row in range(rows):
                assert other.prompt(row).tolist() == one.prompt(row).tolist()
                assert other.target(row).tolist() == one.target(row).tolist()
            assert other.prompt_lengths.tolist() == one.prompt_lengths[:rows].tolist()
            assert other.target_lengths.tolist() == one.target_lengths[:rows].tolist()


def test_a_dataset_of_many_shards_takes_no_more_memory_than_one_of_few(tmp_path: Path) -> None:
    task = TASK_LIST[0]
    folder = dataset(tmp_path, task, Level.LONG, 3000)
    words_of(task).save(tmp_path / "words" / "tokenizer.json")
    manifest = Manifest.read(folder)
    assert manifest is not None
    program = (
        "import sys, tracemalloc; from pathlib import Path; import pyarrow; "
        "from showhow.datasets.tokenise import tokenise; from showhow.datasets.tokenizer import StudyTokenizer; "
        "words = StudyTokenizer.read(Path(sys.argv[2])); tracemalloc.start(); "
        "tokenise(Path(sys.argv[1]), words, 4096, 0.0); "
        "print(tracemalloc.get_traced_memory()[1] + pyarrow.default_memory_pool().max_memory())"
    )
    peaks = []
    for times in (2, 30):
        manifest.model_copy(update={"shards": manifest.shards * times}).write(folder)
        command = [sys.executable, "-c", program, str(folder), str(tmp_path / "words" / "tokenizer.json")]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        (path,) = folder.glob("*.arrow")
        assert len(TokenFile(path)) == 3000 * times
        path.unlink()
    assert peaks[1] < 1.1 * peaks[0]


def test_a_tokenised_dataset_is_reused_and_one_that_cannot_be_read_is_written_again(tmp_path: Path) -> None:
    task = TASK_LIST[0]
    folder, words = dataset(tmp_path, task, Level.LONG), words_of(task)
    path = tokenise(folder, words, 4096, 0.0)
    written, whole = path.stat().st_mtime_ns, path.read_bytes()
    assert tokenise(folder, words, 4096, 0.0) == path
    assert path.stat().st_mtime_ns == written
    path.write_bytes(whole[:200])
    with pytest.raises(TrialError, match=rf"{path} is not a tokenised dataset"):
        TokenFile(path)
    assert tokenise(folder, words, 4096, 0.0).read_bytes() == whole


def test_processes_that_tokenise_the_same_dataset_at_once_all_get_it_whole(tmp_path: Path) -> None:
    task = TASK_LIST[0]
    folder, words = dataset(tmp_path, task, Level.LONG, 3000), words_of(task)
    words.save(tmp_path / "words" / "tokenizer.json")
    program = (
        "import sys; from pathlib import Path; from showhow.datasets.tokenise import tokenise; "
        "from showhow.datasets.tokenizer import StudyTokenizer; "
        "words = StudyTokenizer.read(Path(sys.argv[2])); print('ready', flush=True); sys.stdin.readline(); "
        "tokenise(Path(sys.argv[1]), words, 4096, 0.0)"
    )
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "words" / "tokenizer.json")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.communicate("\n", timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0]
    (path,) = folder.glob("*arrow*")
    whole = path.read_bytes()
    path.unlink()
    assert tokenise(folder, words, 4096, 0.0).read_bytes() == whole
    assert not list(folder.glob(".*"))


def test_what_is_no_finished_dataset_is_not_tokenised(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a finished dataset"):
        tokenise(tmp_path, symbol_tokenizer(TASK_LIST[:1]), 4096, 0.0)


def test_a_task_of_a_single_step_keeps_its_own_layout() -> None:
    task = task_named("modular_sum", {"terms": 2})
    assert symbol_tokenizer([task]).layout(task.text_format) == task.text_format
