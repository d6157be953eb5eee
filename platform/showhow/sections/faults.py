"""The faults of a study, as sentences: the setting, the value found, what is allowed, the nearest valid name.

`source.py` finds the setting's line in the file.
"""

import json
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from showhow.errors import nearest
from showhow.kinds import KIND_MARK, NAME_MARK, ByKind, Catalogue, finding, found_again, literal_kind, raise_findings

# Pydantic's errors, worded for authors of TOML.
_MUST = {
    "bool_type": "must be true or false",
    "dict_type": "must be a section (a table)",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:,}",
    "model_attributes_type": "must be a section (a table)",
    "model_type": "must be a section (a table)",
    "string_too_short": "must not be empty",
    "string_type": "must be text, in quotes",
    "too_long": "must have {max_length} values",
    "too_short": "must not be empty",
    "tuple_type": "must be a list, such as [1, 2]",
}
_WRITTEN = {"int": "a whole number", "float": "a number", "str": '"text"', "bool": "true or false", "tuple": "[1, 2]"}


class Fault(NamedTuple):
    """One mistake: the dotted name of the setting (`recipe.batch_size`), and a sentence."""

    key: str
    message: str


def refuse(faults: Iterable[Fault]) -> None:
    """Raise pydantic's ValidationError for the faults that a validator found, if there are any."""
    raise_findings([finding(message, tuple(key.split(".")) if key else ()) for key, message in faults])


@dataclass(frozen=True)
class PartOf:
    """Annotates a table that sets some of a model's fields: those it sets must be right, the others may be missing."""

    model: type[BaseModel]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, values: dict[str, Any]) -> dict[str, Any]:
        try:
            self.model.model_validate(values, strict=True)
        except ValidationError as error:
            raise_findings([found_again(item) for item in error.errors() if item["type"] != "missing"])
        return values


def faults_of(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """Turn pydantic's errors for a model into sentences."""
    found = [dict(item) for item in error.errors()]
    # a list is also called empty when all its values are wrong, and each of them is reported already
    reported = [item for item in found if item["type"] == "too_short" and item["input"]]
    return list(dict.fromkeys(_fault(item, model) for item in found if item not in reported))


def _fault(item: dict[str, Any], model: type[BaseModel]) -> Fault:
    place = _follow(model, item["loc"])
    context = item.get("ctx", {})
    match item["type"]:
        case "fault":
            return Fault(place.key, context["message"])
        case "value_error":
            return Fault(place.key, str(context["error"]))
        case "extra_forbidden":
            return Fault(place.key, _unknown(place, model))
        case "missing":
            return Fault(place.key, f"is missing: {_purpose(place)}")
        case "axis_kind":
            return Fault(place.key, _no_axis(place, item))
        case "union_tag_not_found" | "union_tag_invalid":
            return Fault(f"{place.key}.kind", _kind_fault(place, context.get("tag")))
    return Fault(place.key, f"got {shown(item['input'])}, {_allowed(item, context)}")


def _allowed(item: dict[str, Any], context: dict[str, Any]) -> str:
    if item["type"] in ("literal_error", "enum"):
        allowed = [text or number for text, number in re.findall(r"'([^']*)'|(\d+)", context["expected"])]
        return f"must be one of: {', '.join(allowed)}.{nearest(str(item['input']), allowed)}"
    if item["type"] in _MUST:
        return _MUST[item["type"]].format(**context)
    return str(item["msg"]).removeprefix("Input ")


def _no_axis(place: "_Place", item: dict[str, Any]) -> str:
    """Describe an axis; a wrong name may also be a misspelt setting of the section."""
    got = item["input"]
    if isinstance(got, dict):
        hint = nearest(str(next(iter(got), "")), re.findall(r"{ (\w+) =", item["msg"]))
    else:
        hint = nearest(
            place.name, [field for field in place.owner.model_fields if field != "axes"] if place.owner else []
        )
    return f"got {shown(got)}, but {item['msg']}.{hint}"


class _Place(NamedTuple):
    """The place of an error: its dotted name, the last part of that, and the model with that field."""

    key: str
    name: str
    owner: type[BaseModel] | None


def _follow(model: type[BaseModel], location: tuple[int | str, ...]) -> _Place:
    """Find the setting at a pydantic location, leaving out tags of unions, which are not in the file."""
    walk = _Walk(model)
    for part in location:
        walk.step(part)
    return _Place(walk.key, walk.name, walk.owner)


class _Walk:
    """A walk through the models along a location. _owners: the models whose field the next part may be; owner: the
    model of the last part."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.key, self.name = "", ""
        self.owner: type[BaseModel] | None = model
        self._owners: list[type[BaseModel]] = [model]
        self._is_entry = False  # the next part is the name of an entry in a table of entries
        self._is_by_kind = False  # the next part may be the class that read the table, or the table's name

    def step(self, part: int | str) -> None:
        """Take the next part of the location."""
        if isinstance(part, int):
            self.key += f"[{part}]"
        elif self._is_by_kind and part.startswith(KIND_MARK):
            self._owners = [one for one in self._owners if f"{KIND_MARK}{literal_kind(one)}" == part]
            self._is_by_kind = False
        elif self._is_by_kind and part.startswith(NAME_MARK):
            self._called(part.removeprefix(NAME_MARK))
        elif len(self._owners) > 1 and not (self._is_entry or self._is_by_kind) and self._tagged(part):
            self._owners = self._tagged(part)
        else:
            self._field(part)

    def _tagged(self, part: str) -> list[type[BaseModel]]:
        return [candidate for candidate in self._owners if _tag_of(candidate) == part]

    def _field(self, part: str) -> None:
        only = self._owners[0] if len(self._owners) == 1 else None
        field = only.model_fields.get(part) if only is not None and not self._is_entry else None
        if not self._is_entry:
            self.owner = only
        self._is_entry = self._is_by_kind = False
        if field is not None:
            self._owners, self._is_by_kind = _sections(field), _catalogue_of(field) is not None
            self._is_entry = typing.get_origin(field.annotation) is dict and self._owners == models_in(field.annotation)
        if part != "axes":
            self._called(part)

    def _called(self, part: str) -> None:
        self.key, self.name = f"{self.key}.{part}".lstrip("."), part


def _tag_of(model: type[BaseModel]) -> str | None:
    if "kind" not in model.model_fields:  # an axis is identified by its only field
        return next(iter(model.model_fields))
    return literal_kind(model)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models that an annotation names, including those of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in models_in(inner)]


def _catalogue_of(field: FieldInfo) -> Catalogue[Any] | None:
    """Return the catalogue of the classes that may read a field's table, if it has kinds."""
    extras = [*field.metadata, *(extra for inner in typing.get_args(field.annotation) for extra in _extras(inner))]
    return next((extra.catalogue for extra in extras if isinstance(extra, ByKind)), None)


def _extras(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation)[1:] if typing.get_origin(annotation) is typing.Annotated else ()


def _sections(field: FieldInfo) -> list[type[BaseModel]]:
    """Return the models whose fields a field's table sets."""
    catalogue = _catalogue_of(field)
    if catalogue is not None:
        return list(catalogue.classes.values())
    return [extra.model for extra in field.metadata if isinstance(extra, PartOf)] or models_in(field.annotation)


def _unknown(place: _Place, root: type[BaseModel]) -> str:
    allowed = [field for field in place.owner.model_fields if field != "axes"] if place.owner else []
    elsewhere = [
        f"[{section}]"
        for section, field in root.model_fields.items()
        if section != place.key.partition(".")[0]
        and any(place.name in model.model_fields for model in _sections(field))
    ]
    hint = f" It belongs in {' or '.join(elsewhere)}." if elsewhere else nearest(place.name, allowed)
    return f"there is no such setting.{hint} Allowed: {', '.join(allowed)}"


def _purpose(place: _Place) -> str:
    """Describe how to write a missing setting."""
    field = place.owner.model_fields.get(place.name) if place.owner else None
    if field is None:
        return "two values are needed, such as [1, 10]"
    models = _sections(field)
    if len(models) == 1:
        needed = [name for name, inner in models[0].model_fields.items() if inner.is_required() and name != "axes"]
        return f"write a section [{place.name}]" + (f" with {', '.join(needed)}" if needed else "")
    if models:
        return f"write a section [{place.name}] with kind = one of {', '.join(filter(None, map(_tag_of, models)))}"
    annotation = typing.get_origin(field.annotation) or field.annotation
    if annotation is Literal:
        return f"write {place.name} = one of {', '.join(typing.get_args(field.annotation))}"
    if annotation in (types.UnionType, typing.Union):
        annotation = typing.get_args(field.annotation)[0]
    return f"write {place.name} = {_WRITTEN.get(str(getattr(annotation, '__name__', '')), '...')}"


def _kind_fault(place: _Place, got: object) -> str:
    field = place.owner.model_fields.get(place.name) if place.owner else None
    kinds = [str(_tag_of(model)) for model in models_in(field.annotation)] if field else []
    found = "is missing." if got is None else f"got {shown(got)}.{nearest(str(got), kinds)}"
    return f"{found} Allowed: {', '.join(kinds)}"


def shown(value: Any) -> str:
    """Return a value as text, shortened if it is long."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
