"""How an instruct model is asked: what its chat template puts before and after a question, and the token with which its
turn ends.

Templates are Jinja programs of a model's author, and run in Jinja's sandbox, with what transformers gives them
(https://huggingface.co/docs/transformers/chat_templating). Which tokens become of the text is the business of
tokenizer.py.
"""

import datetime
import json
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from showhow.errors import UserError

# Templates that write the date (Llama 3.1's) get always the same, which is the one they name where they know none: the
# same study must give the same tokens tomorrow.
_TODAY = datetime.date(2024, 7, 26)
_QUESTION, _REPLY = "This is the question 7919", "This is the reply 104729"
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Chat(NamedTuple):
    """What stands before and after a question, and what ends the reply."""

    before: str
    after: str
    end: str


def chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    """Return the chat template in a tokenizer's folder or, of older ones, in its settings; None where there is none."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    found = settings.get("chat_template")
    if isinstance(found, list):  # several, by name
        found = {entry.get("name"): entry.get("template") for entry in found}.get("default")
    return found if isinstance(found, str) else None


def read_chat(template: str, settings: dict[str, Any]) -> Chat:
    """Return how a template frames a single question, found by writing one and a reply with it.

    Raises UserError when the template fails, or writes something else than what it is given."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _TODAY.strftime}
    named = {name: _text_of(settings.get(name)) for name in _SPECIAL}
    given = {name: text for name, text in named.items() if text is not None}
    question = {"role": "user", "content": _QUESTION}
    reply = {"role": "assistant", "content": _REPLY}
    try:
        written = environment.from_string(template)
        asked = written.render(messages=[question], tools=None, documents=None, add_generation_prompt=True, **given)
        whole = written.render(
            messages=[question, reply], tools=None, documents=None, add_generation_prompt=False, **given
        )
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise _unusable(str(error)) from None
    before, *after = asked.split(_QUESTION)
    _, *end = whole.split(_REPLY)
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


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(value: Any, indent: int | None = None) -> str:
    # Jinja's own makes text safe for web pages.
    return json.dumps(value, ensure_ascii=False, indent=indent)
