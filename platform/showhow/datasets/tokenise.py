"""Tokenises a dataset once per tokenizer, into an Arrow file that trials read by memory map (format:
`training/tokens.py`).

From-scratch models get a word-level tokenizer made of their task's symbols; pretrained ones bring a `tokenizer.json`.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from showhow.datasets.examples import to_example
from showhow.datasets.manifest import Manifest
from showhow.errors import UserError
from showhow.fingerprint import fingerprint
from showhow.seeds import rng_for
from showhow.study.recipe import ModelSpec, PretrainedModel
from showhow.tasks.base import Task
from showhow.tasks.explain import FILLER_SYMBOL, SYMBOL, Level, symbols

_PAD, _END, _UNKNOWN = "<pad>", "<end>", "<unknown>"
_PROBLEMS_READ_FOR_SYMBOLS = 300
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class StudyTokenizer:
    """A tokenizer with the ids that training needs. `fingerprint` names its contents."""

    tokenizer: Tokenizer
    pad: int
    end: int
    start: int | None
    fingerprint: str

    def save(self, path: Path) -> None:
        """Write `tokenizer.json` in one move."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(self.tokenizer.to_str(), encoding="utf-8")
        partial.replace(path)


def tokenizer_for(model: ModelSpec, tasks: list[Task]) -> StudyTokenizer:
    """Return the tokenizer of a model: its own, or one made of the symbols of the tasks it will meet."""
    return pretrained_tokenizer(model.name) if isinstance(model, PretrainedModel) else symbol_tokenizer(tasks)


def symbol_tokenizer(tasks: list[Task]) -> StudyTokenizer:
    """Return a word-level tokenizer with a token for each number up to the tasks' largest, each word and each sign.

    A number is one token wherever it stands, so that a step is a function of few tokens; joining a text's tokens gives
    the text back. Words and signs are collected from problems drawn with a key of their own, at every level."""
    words = {symbol for task in tasks for text in _texts(task) for symbol in symbols(text) if not symbol.isdecimal()}
    numbers = [str(number) for number in range(max(task.largest_number for task in tasks) + 1)]
    vocabulary = {token: index for index, token in enumerate([_PAD, _END, _UNKNOWN, *numbers, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(SYMBOL.pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([_PAD, _END, _UNKNOWN])
    return StudyTokenizer(tokenizer, pad=0, end=1, start=None, fingerprint=fingerprint(tokenizer.to_str()))


def _texts(task: Task) -> list[str]:
    rng = rng_for("symbols", task.model_dump_json())
    problems = [task.draw(rng) for _ in range(_PROBLEMS_READ_FOR_SYMBOLS)]
    texts = [problem.question for problem in problems]
    for level in Level:
        texts += [to_example(task, level, Level.SHORT, problem, problems[0]).target for problem in problems]
    return texts


def pretrained_tokenizer(name: str) -> StudyTokenizer:
    """Return the fast tokenizer of a pretrained model, by local folder or Hugging Face name. Raises UserError without
    one."""
    try:
        folder = Path(name)
        if folder.is_dir():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        else:
            from huggingface_hub import hf_hub_download  # only named models are fetched

            tokenizer = Tokenizer.from_file(hf_hub_download(name, "tokenizer.json"))
            settings = json.loads(Path(hf_hub_download(name, "tokenizer_config.json")).read_text(encoding="utf-8"))
    except Exception as error:  # noqa: BLE001 - `tokenizers` raises bare Exception, the hub a dozen kinds
        raise UserError(
            f'model.name = "{name}": its tokenizer cannot be read ({str(error).splitlines()[0]}). '
            "A model is a local folder, or a Hugging Face name, with tokenizer.json and tokenizer_config.json"
        ) from None
    ids = {role: _special_id(tokenizer, settings.get(f"{role}_token")) for role in ("pad", "eos", "bos")}
    if ids["eos"] is None:
        raise UserError(
            f'model.name = "{name}": its tokenizer has no end token (eos_token), so a reply could never end'
        )
    pad = ids["eos"] if ids["pad"] is None else ids["pad"]
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return StudyTokenizer(tokenizer, pad, ids["eos"], ids["bos"], fingerprint(tokenizer.to_str()))


def _special_id(tokenizer: Tokenizer, token: Any) -> int | None:
    content = token.get("content") if isinstance(token, dict) else token
    found: int | None = tokenizer.token_to_id(content) if content else None
    return found


def tokenise(folder: Path, words: StudyTokenizer, max_tokens: int, max_dropped_share: float) -> Path:
    """Return the Arrow file of a dataset under a tokenizer, writing it unless it is there.

    Rows longer than max_tokens are dropped whole: an answer is never cut off. Raises UserError when more than
    max_dropped_share of the rows are too long, or when the tokenizer does not know a symbol."""
    path = folder / f"tokens-{words.fingerprint}-{max_tokens}.arrow"
    if path.is_file():
        return path
    manifest = Manifest.read(folder)
    if manifest is None:
        raise UserError(f"{folder} is not a finished dataset; run the study again to generate it")
    table = pa.concat_tables(pq.read_table(folder / shard.name) for shard in manifest.shards)
    prompts = _encode(words, table["question"].to_pylist(), folder, add_special_tokens=True)
    targets = [[*ids, words.end] for ids in _target_ids(words, table, manifest, folder)]
    fits = np.array([len(p) + len(t) <= max_tokens for p, t in zip(prompts, targets, strict=True)])
    dropped = 1 - float(fits.mean())
    if dropped > max_dropped_share:
        longest = max(len(p) + len(t) for p, t in zip(prompts, targets, strict=True))
        raise UserError(
            f"{dropped:.1%} of the {manifest.spec.split} rows at level {manifest.spec.level} are longer than "
            f"data.max_tokens = {max_tokens} (the longest has {longest}), and data.max_dropped_share = "
            f"{max_dropped_share:g}; raise max_tokens, or allow a larger share to be dropped"
        )
    _write(
        path,
        words,
        manifest,
        pa.table(
            {
                "prompt_ids": _lists(prompts),
                "target_ids": _lists(targets),
                "question": table["question"],
                "target": table["target"],
            }
        ).filter(pa.array(fits)),
    )
    return path


def _target_ids(words: StudyTokenizer, table: pa.Table, manifest: Manifest, folder: Path) -> list[list[int]]:
    targets = _encode(words, table["target"].to_pylist(), folder)
    if manifest.spec.level is not Level.FILLER:
        return targets
    prefix = manifest.spec.task.text_format.answer_prefix
    endings = _encode(words, [prefix + answer for answer in table["answer"].to_pylist()], folder)
    matched = _encode(words, table["matched"].to_pylist(), folder)
    dot = words.tokenizer.encode(FILLER_SYMBOL, add_special_tokens=False).ids[-1:]
    return [dot * (len(whole) - len(ending)) + ending for whole, ending in zip(matched, endings, strict=True)]


def _encode(words: StudyTokenizer, texts: list[str], folder: Path, add_special_tokens: bool = False) -> list[list[int]]:
    unknown = words.tokenizer.token_to_id(_UNKNOWN)
    found: list[list[int]] = []
    for start in range(0, len(texts), _ROWS_AT_ONCE):
        part = texts[start : start + _ROWS_AT_ONCE]
        for text, encoding in zip(
            part, words.tokenizer.encode_batch_fast(part, add_special_tokens=add_special_tokens), strict=True
        ):
            if unknown is not None and unknown in encoding.ids:
                raise UserError(
                    f'{folder}: the tokenizer made of the task\'s symbols does not know a symbol of "{text}"'
                )
            found.append(encoding.ids)
    return found


def _lists(rows: list[list[int]]) -> pa.LargeListArray:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    values = np.fromiter((token for row in rows for token in row), dtype=np.int32, count=int(offsets[-1]))
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values, pa.int32()))


def _write(path: Path, words: StudyTokenizer, manifest: Manifest, table: pa.Table) -> None:
    layout = manifest.spec.task.text_format
    metadata = {
        "pad": words.pad,
        "end": words.end,
        "start": words.start,
        "vocabulary": words.tokenizer.get_vocab_size(with_added_tokens=True),
        "layout": {"step_separator": layout.step_separator, "answer_prefix": layout.answer_prefix},
    }
    table = table.combine_chunks().replace_schema_metadata({b"showhow": json.dumps(metadata).encode()})
    partial = path.with_suffix(".partial")
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    partial.replace(path)
