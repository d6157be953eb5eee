"""How an instruct model is prompted: the text that its chat template puts before and after a question, and the token
that ends the model's turn.

Templates are Jinja programs written by the model's author. They run in Jinja's sandbox, with the variables that
transformers defines (https://huggingface.co/docs/transformers/chat_templating). datasets/tokenizer.py turns the text
into tokens; `frame_tokens` estimates how many. Jinja is imported only where there is a template.
"""

import datetime
import json
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from showhow.errors import UserError
from showhow.models.folders import json_in, local_folder
from showhow.sections.recipe import ModelSpec, ScratchModel
from showhow.tasks.explain import symbols

# Templates that write the date (Llama 3.1's) always get this one, their own default where no date is known: the same
# study must give the same tokens tomorrow.
_TODAY = datetime.date(2024, 7, 26)
_QUESTION, _REPLY = "This is the question 7919", "This is the reply 104729"
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Chat(NamedTuple):
    """The text before and after a question, and the text that ends the reply."""

    before: str
    after: str
    end: str


def chat_of(folder: Path, questions: Literal["auto", "plain", "chat"]) -> Chat | None:
    """Return how the model in a folder is prompted, by the study's `questions` (see PretrainedModel); None where
    questions are used as they are.

    Raises UserError when the template fails or does not repeat the question and the reply, or when `questions` is
    "chat" and there is no template."""
    if questions == "plain":
        return None
    settings = json_in(folder / "tokenizer_config.json") or {}
    template = _template(folder, settings)
    if template is not None:
        return _chat(template, tuple((name, _text_of(settings.get(name))) for name in _SPECIAL))
    if questions == "chat":
        raise UserError(
            "the tokenizer of the model has no chat template (chat_template.jinja, or chat_template in "
            'tokenizer_config.json); write questions = "plain" in [model], or take an instruct model'
        )
    return None


def frame_tokens(model: ModelSpec) -> int:
    """Return about how many tokens a chat template puts around a question: its special tokens, and the symbols of the
    other text. 0 where there is no template, or the model is not on this disk. Raises UserError like `chat_of`."""
    folder = None if isinstance(model, ScratchModel) else local_folder(model.name)
    chat = None if folder is None or isinstance(model, ScratchModel) else chat_of(folder, model.questions)
    if folder is None or chat is None:
        return 0
    return sum(_about(text, _added_tokens(folder)) for text in (chat.before, chat.after))


def _about(text: str, special: set[str]) -> int:
    count = 0
    for token in sorted(special, key=len, reverse=True):
        count += text.count(token)
        text = text.replace(token, "")
    return count + len(symbols(text))


def _added_tokens(folder: Path) -> set[str]:
    tokens = json_in(folder / "tokenizer.json") or {}
    found = (_text_of(token) for token in tokens.get("added_tokens") or ())
    return {token for token in found if token}


def _template(folder: Path, settings: dict[str, Any]) -> str | None:
    """Return the chat template in a tokenizer's folder or, in older ones, in its settings; None where there is none."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise _unusable(str(error)) from None
    found = settings.get("chat_template")
    if isinstance(found, list):  # several, by name
        named = [entry.get("template") for entry in found if isinstance(entry, dict) and entry.get("name") == "default"]
        found = named[-1] if named else None
    return found if isinstance(found, str) else None


@cache  # called for every trial of a study
def _chat(template: str, named: tuple[tuple[str, str | None], ...]) -> Chat:
    """Return how a template frames a single question, found by rendering one question and one reply. named: the special
    tokens."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": refuse, "strftime_now": _TODAY.strftime}
    given = {name: text for name, text in named if text is not None}
    question = {"role": "user", "content": _QUESTION}
    reply = {"role": "assistant", "content": _REPLY}
    try:
        written = environment.from_string(template)
        prompt = written.render(messages=[question], tools=None, documents=None, add_generation_prompt=True, **given)
        turns = written.render(
            messages=[question, reply], tools=None, documents=None, add_generation_prompt=False, **given
        )
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise _unusable(str(error)) from None
    before, *after = prompt.split(_QUESTION)
    _, *end = turns.split(_REPLY)
    if len(after) != 1 or len(end) != 1:
        raise _unusable(f"it wrote the question {len(after)} times and the reply {len(end)} times, and not once each")
    return Chat(before, after[0], end[0])


def _unusable(reason: str) -> UserError:
    return UserError(
        f'the chat template of the model cannot be used ({reason}). questions = "plain" in [model] asks without it'
    )


def _text_of(token: Any) -> str | None:
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None


def _to_json(value: Any, indent: int | None = None) -> str:
    # Jinja's own filter escapes text for web pages.
    return json.dumps(value, ensure_ascii=False, indent=indent)
