"""The tokenizer of a study: built from its tasks' symbols for from-scratch models, the model's own for pretrained
ones."""

import json
import string
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int32, Int64, UInt8
from numpy import ndarray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from showhow.datasets.atomic import atomic_file
from showhow.datasets.examples import to_example
from showhow.errors import UserError
from showhow.fingerprint import Json, fingerprint
from showhow.models.chat import chat_of
from showhow.models.settings import folder_faults
from showhow.sections.recipe import ModelSpec, PretrainedModel
from showhow.sections.trial import Trial
from showhow.seeds import rng_for
from showhow.tasks.base import Task, TextFormat
from showhow.tasks.explain import SYMBOL, Level, symbols

# The separator of steps where a tokenizer cannot spell a task's own (T5's reads a line break as a blank). No step of
# any task contains it, as a test checks.
SPARE_SEPARATOR = "; "

_PAD, _END, _UNKNOWN = "<pad>", "<end>", "<unknown>"
_PROBLEMS_READ_FOR_SYMBOLS = 300
_FACTS = "facts.json"

# The kind of each byte, as bits; 0: not ASCII, so that a byte alone has no kind.
_DIGIT, _LETTER, _SIGN, _BLANK, _ALONE = 1, 2, 4, 8, 16
_KINDS = bytearray(256)
for _kind, _signs in (
    (_DIGIT, string.digits),
    (_LETTER, string.ascii_letters),
    (_SIGN, string.punctuation),
    (_BLANK, " "),
    (_ALONE, "_\t\n\v\f\r"),  # after punctuation, which includes the underscore
):
    for _byte in _signs.encode():
        _KINDS[_byte] = _kind


@dataclass(frozen=True)
class SpecialIds:
    """The ids of special tokens; `start` and `unknown` are None for tokenizers without them."""

    pad: int
    end: int
    start: int | None
    unknown: int | None


@dataclass(frozen=True)
class TokenRows:
    """The token ids of some texts, concatenated, and the number of tokens of each."""

    ids: Int32[ndarray, " tokens"]
    lengths: Int64[ndarray, " rows"]


@dataclass(frozen=True)
class StudyTokenizer:
    """A tokenizer with the ids that training needs. by_symbols: its tokens are those of `explain.symbols`. frame: the
    text that a chat template puts before and after a question."""

    tokenizer: Tokenizer
    ids: SpecialIds
    by_symbols: bool = False
    frame: tuple[str, str] | None = None

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that identify its behaviour."""
        framed: dict[str, Json] = {} if self.frame is None else {"frame": [*self.frame]}
        return fingerprint({"tokenizer": self.tokenizer.to_str(), **asdict(self.ids), **framed})

    @cached_property
    def vocabulary(self) -> int:
        """One more than the largest token id."""
        return 1 + max(self.tokenizer.get_vocab(with_added_tokens=True).values())

    def save(self, path: Path) -> None:
        """Write `tokenizer.json` and, in the same folder, the other fields, each file in one move."""
        facts = {"ids": asdict(self.ids), "by_symbols": self.by_symbols, "frame": self.frame}
        for target, text in ((path.with_name(_FACTS), json.dumps(facts)), (path, self.tokenizer.to_str())):
            with atomic_file(target) as partial:
                partial.write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "StudyTokenizer":
        """Read what `save` wrote."""
        facts = json.loads(path.with_name(_FACTS).read_text(encoding="utf-8"))
        frame = tuple(facts["frame"]) if facts.get("frame") else None
        return cls(Tokenizer.from_file(str(path)), SpecialIds(**facts["ids"]), facts["by_symbols"], frame)

    def encode(self, texts: pa.StringArray, as_prompts: bool = False) -> TokenRows:
        """Return the token ids of some texts. Prompts get the frame of the chat template or, without a template, the
        special tokens that the tokenizer adds to a text, such as a start token."""
        if self.by_symbols:
            data, offsets = _bytes(texts)
            kinds = np.frombuffer(data.tobytes().translate(_KINDS), dtype=np.uint8)
            if kinds.all():  # the same ids in a thirtieth of the time
                starts = _symbol_starts(kinds, offsets)
                ends = np.append(starts, len(data)).astype(np.int32)
                found = pa.StringArray.from_buffers(len(starts), pa.py_buffer(ends), pa.py_buffer(data))
                ids = pc.fill_null(pc.index_in(found, self._vocabulary), self.ids.unknown)
                return TokenRows(ids.to_numpy(), np.diff(np.searchsorted(starts, offsets)))
        if as_prompts and self.frame is not None:
            before, after = self.frame
            framed = [before + text + after for text in texts.to_pylist()]
            encodings = self.tokenizer.encode_batch_fast(framed, add_special_tokens=False)  # they are in the template
        else:
            encodings = self.tokenizer.encode_batch_fast(texts.to_pylist(), add_special_tokens=as_prompts)
        rows = [encoding.ids for encoding in encodings]
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        return TokenRows(np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(lengths.sum())), lengths)

    @cached_property
    def _vocabulary(self) -> pa.StringArray:
        """The tokens, in the order of their ids."""
        vocabulary: dict[str, int] = self.tokenizer.get_vocab()
        return pa.array(sorted(vocabulary, key=vocabulary.__getitem__))

    def layout(self, own: TextFormat) -> TextFormat:
        """Return the text format of targets for this tokenizer: the task's own, or one with the spare separator.

        Raises UserError when a decoded reply could not be split into steps and answer."""
        if self.by_symbols:
            return own  # it was built from the texts of its tasks
        for layout in (own, replace(own, step_separator=SPARE_SEPARATOR)):
            text = layout.step_separator.join(["1", "1", layout.answer_prefix + "1"])
            read_back = self.tokenizer.decode(self.encode(pa.array([text])).ids.tolist(), skip_special_tokens=True)
            steps, prefix, _ = read_back.rpartition(layout.answer_prefix.strip())
            if prefix and steps.count(layout.step_separator) == 2:
                return layout
        raise UserError(
            f'the tokenizer of the model decodes "{text}" as "{read_back}", so steps and answer could not be told '
            "apart; choose a model whose tokenizer keeps capitals, blanks and signs"
        )


def tokenizer_for(model: ModelSpec, tasks: list[Task], texts: Sequence[str] = ()) -> StudyTokenizer:
    """Return the tokenizer of a model: its own, or one built from the symbols of its tasks and of further texts."""
    if isinstance(model, PretrainedModel):
        return pretrained_tokenizer(model.name, model.questions)
    return symbol_tokenizer(tasks, texts)


def symbol_tokenizer(tasks: list[Task], texts: Sequence[str] = ()) -> StudyTokenizer:
    """Return a word-level tokenizer with a token for each number up to the tasks' largest, each word and each sign.

    A number is one token in every position, so that a step is a function of few tokens; joining a text's tokens gives
    the text. Words and signs are collected at every level from problems drawn with their own key, or from all problems
    of a listed task."""
    numbers = [str(number) for number in range(max(task.largest_number for task in tasks) + 1)]
    read = chain(texts, (text for task in tasks for text in _texts(task)))
    words = {symbol for text in read for symbol in symbols(text)}.difference(numbers)
    vocabulary = {token: index for index, token in enumerate([_PAD, _END, _UNKNOWN, *numbers, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(SYMBOL.pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([_PAD, _END, _UNKNOWN])
    return StudyTokenizer(tokenizer, SpecialIds(pad=0, end=1, start=None, unknown=2), by_symbols=True)


def _bytes(texts: pa.StringArray) -> tuple[UInt8[ndarray, " bytes"], Int32[ndarray, " rows_plus_1"]]:
    """Return the bytes of some strings, concatenated, and the offset of each. Nothing is copied."""
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data, dtype=np.uint8)[bounds[0] : bounds[-1]], bounds - bounds[0]


def _symbol_starts(
    kinds: UInt8[ndarray, " bytes"], offsets: Int32[ndarray, " rows_plus_1"]
) -> Int64[ndarray, " symbols"]:
    """Return the offset of each symbol, as `explain.SYMBOL` splits each text.

    Whether a byte continues a symbol depends on its own kind and on the two bytes before it: a run of digits or of
    letters continues; a blank ends the word or sign before it, and if there is none it starts the one after it."""
    opens = np.zeros(len(kinds) + 1, dtype=bool)
    opens[offsets] = True
    opens = opens[:-1]
    word_or_sign = kinds & (_LETTER | _SIGN) != 0
    blank = kinds == _BLANK
    continues = np.zeros_like(opens)
    continues[1:] = blank[1:] & word_or_sign[:-1] & ~opens[1:]
    leads = blank & ~continues
    continues[1:] |= (kinds[1:] & kinds[:-1] & (_DIGIT | _LETTER) != 0) | (word_or_sign[1:] & leads[:-1])
    return np.flatnonzero(opens | ~continues)


def _texts(task: Task) -> list[str]:
    rng = rng_for("symbols", task.identity)
    problems = task.listed or [task.draw(rng) for _ in range(_PROBLEMS_READ_FOR_SYMBOLS)]
    texts = [problem.question for problem in problems]
    for level in Level:
        texts += [to_example(task, level, Level.SHORT, problem, problems[0]).target for problem in problems]
    return texts


def pretrained_tokenizer(name: str, questions: Literal["auto", "plain", "chat"] = "auto") -> StudyTokenizer:
    """Return the fast tokenizer of a pretrained model, by local folder or Hugging Face name, with the frame of its chat
    template if `questions` asks for one (see PretrainedModel).

    A reply to a framed question ends with the first special token by which the template ends the model's turn, which is
    not always the tokenizer's end token (Gemma's is <end_of_turn>). Raises UserError where there is no usable
    tokenizer."""
    try:
        folder = settings_folder(name)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except Exception as error:  # noqa: BLE001 - `tokenizers` raises bare Exception, the hub a dozen kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f'model.name = "{name}": its tokenizer cannot be read ({reason}). '
            "A model is a local folder, or a Hugging Face name, with tokenizer.json and tokenizer_config.json"
        ) from None
    chat = chat_of(folder, questions)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = {role: _special_id(tokenizer, settings.get(f"{role}_token")) for role in ("pad", "eos", "bos", "unk")}
    frame, end = None, ids["eos"]
    if chat is not None:
        frame, end = (chat.before, chat.after), _first_special(tokenizer, chat.end, ids["eos"])
    if end is None:
        raise UserError(
            f'model.name = "{name}": its tokenizer has no end token (eos_token), so a reply could never end'
        )
    pad = end if ids["pad"] is None else ids["pad"]
    return StudyTokenizer(tokenizer, SpecialIds(pad, end, ids["bos"], ids["unk"]), frame=frame)


def check_settings(trial: Trial) -> None:
    """Raise UserError where a trial is not compatible with the settings of its pretrained model, which for a model on
    the hub are not known before (see models/settings.py)."""
    if isinstance(trial.model, PretrainedModel):
        faults = folder_faults(trial, settings_folder(trial.model.name))
        if faults:
            raise UserError("; ".join(f"{key}: {message}" for key, message in faults))


@cache
def settings_folder(name: str) -> Path:
    """Return the folder of a model's tokenizer and settings: its own, or the copy in the cache of the hub's client.
    Raises OSError, or an error of the hub's client, where there is neither."""
    folder = Path(name)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download  # needed only for models on the hub

    wanted = ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    return Path(snapshot_download(name, allow_patterns=wanted))


def _first_special(tokenizer: Tokenizer, text: str, otherwise: int | None) -> int | None:
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return next((number for number in ids if number in special), otherwise)


def _special_id(tokenizer: Tokenizer, token: Any) -> int | None:
    content = token.get("content") if isinstance(token, dict) else token
    found: int | None = tokenizer.token_to_id(content) if content else None
    return found
