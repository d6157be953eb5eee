"""The catalogue of methods as text: what each does, its parameters, stages and source. Pure."""

import textwrap

from showhow.errors import UserError
from showhow.methods import METHOD_KINDS
from showhow.methods.base import Method

_WIDTH = 100


def gallery() -> str:
    """Return the complete catalogue as text, with registered methods and those of installed packages."""
    return "\n\n".join(_entry(kind, found) for kind, found in METHOD_KINDS.listed())


def _entry(kind: str, method: type[Method] | UserError) -> str:
    if isinstance(method, UserError):
        return f"{kind}: {method}"
    summary, *further = (method.__doc__ or "").strip().split("\n\n")
    lines = [f"{kind}: {_joined(summary)}"]
    for paragraph in further:
        lines += textwrap.wrap(_joined(paragraph), _WIDTH, initial_indent="  ", subsequent_indent="  ")
    for name, field in method.model_fields.items():
        if name != "kind":
            lines.append(f"  {name} = {'...' if field.is_required() else repr(field.default)}")
    lines += [f"  {number}. {stage}" for number, stage in enumerate(method.stages, start=1)]
    return "\n".join([*lines, *([f"  source: {method.source}"] if method.source else [])])


def _joined(paragraph: str) -> str:
    return " ".join(paragraph.split())
