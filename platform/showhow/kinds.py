"""Classes by their `kind`: built-in ones, those that a program registers, and those of installed packages.

A catalogue contains the classes of one base: tasks, methods, metrics, and the sections of a study that have kinds. An
installed package offers a class by an entry point, whose name is the kind; it is loaded only to find a kind that is not
built in, or to list the catalogue. The fields of a class are checked when a study file is read, so a class may be
registered at any time before.
"""

import contextlib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationError, ValidationInfo
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from showhow.errors import UserError, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint  # takes 50 ms to import, and only unknown kinds need it

T = TypeVar("T")
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def literal_kind(cls: type) -> str | None:
    """Return the kind of a pydantic model: the only value of its field `kind`; None where there is none."""
    field = getattr(cls, "model_fields", {}).get("kind")
    if field is None or get_origin(field.annotation) is not Literal:
        return None
    values = get_args(field.annotation)
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None


class Catalogue(Generic[T]):
    """The classes of one base, by kind. group: the group of entry points by which packages add classes (empty: none can
    be added); required: the members that an added class must define itself."""

    def __init__(
        self,
        base: type[T] | tuple[type[T], ...],
        built_in: Mapping[str, type[T]],
        group: str = "",
        required: tuple[str, ...] = (),
        kind_of: Callable[[type], str | None] = literal_kind,
    ) -> None:
        self.base, self.group = base, group
        self._built_in, self._required, self._kind_of = built_in, required, kind_of
        self._registered: dict[str, type[T]] = {}
        self._loaded: dict[str, type[T]] = {}  # from entry points
        if group:
            _OPEN.append(self)

    @property
    def classes(self) -> dict[str, type[T]]:
        """The classes that need no loading of a package, by kind."""
        return {**self._loaded, **self._registered, **self._built_in}

    @property
    def kinds(self) -> list[str]:
        """All kinds, including those of packages; nothing is loaded."""
        return list(dict.fromkeys([*self._built_in, *self._registered, *self._offers()]))

    @property
    def registered(self) -> tuple[type[T], ...]:
        """The classes that this program has registered."""
        return tuple(self._registered.values())

    def find(self, kind: str) -> type[T]:
        """Return the class of a kind. Raises UserError for an unknown kind, with the nearest, and for a package's class
        that cannot be loaded or breaks the contract."""
        for known in (self._built_in, self._registered, self._loaded):
            if kind in known:
                return known[kind]
        if kind in self._offers():
            self._loaded[kind] = self._load(kind)
            return self._loaded[kind]
        allowed = f"Allowed: {', '.join(self.kinds)}" if self.kinds else "There are none"
        raise UserError(f'got "{kind}".{nearest(kind, self.kinds)} {allowed}')

    def listed(self) -> Iterator[tuple[str, type[T] | UserError]]:
        """Yield each kind with its class, or with the reason why a package's class cannot be used."""
        for kind in self.kinds:
            try:
                yield kind, self.find(kind)
            except UserError as error:
                yield kind, error

    def add(self, cls: type[T]) -> None:
        """Add a class. The same class again, for example from a cell of a notebook, replaces the earlier one.

        Raises UserError when it breaks the contract, or has the kind of another class."""
        self._refuse(cls, cls.__qualname__)
        kind = str(self._kind_of(cls))
        there = self._registered.get(kind)
        if there is not None and _name_of(there) != _name_of(cls):
            raise UserError(
                f'{cls.__qualname__}: the kind "{kind}" is already that of {_name_of(there)}; choose another'
            )
        self._registered[kind] = cls

    def _load(self, kind: str) -> type[T]:
        offers = self._offers()[kind]
        whose = [f"{point.dist.name if point.dist else 'a package'} ({point.value})" for point in offers]
        if len(set(whose)) > 1:
            raise UserError(
                f'got "{kind}", which several packages offer: {", ".join(sorted(set(whose)))}; uninstall one'
            )
        what = f'the package {whose[0]}, entry point "{kind}" of {self.group},'
        try:
            cls = offers[0].load()
        except Exception as error:
            raise UserError(f"{what} cannot be loaded: {type(error).__name__}: {error}") from error
        self._refuse(cls, what)
        if self._kind_of(cls) != kind:
            raise UserError(f'{what} has the kind "{self._kind_of(cls)}"; the entry point must be named like it')
        return cls  # type: ignore[no-any-return]

    def _offers(self) -> dict[str, list["EntryPoint"]]:
        """Return the entry points of installed packages by name. Takes some milliseconds, as it reads the packages'
        metadata."""
        if not self.group:
            return {}
        from importlib.metadata import entry_points

        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            found.setdefault(point.name, []).append(point)
        return found

    def _refuse(self, cls: object, what: str) -> None:
        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            raise UserError(f"{what} is not a subclass of {_base_name(self.base)}")
        if faults := list(self._breaches(cls)):
            raise UserError(f"{what} {'; '.join(faults)}")

    def _breaches(self, cls: type) -> Iterator[str]:
        """Yield what is wrong with an added class, a clause each."""
        kind, base = self._kind_of(cls), _base_name(self.base)
        if kind is None or not _KIND.fullmatch(kind):
            example = _HOW_NAMED[self._kind_of is literal_kind]
            yield f"must have a name of letters, digits, _ and -: {example}"
        elif kind in self._built_in:
            yield f'has the kind "{kind}", which is built in; choose another'
        own = [name for name in self._required if _is_inherited(cls, name, self.base)]
        missing = dict.fromkeys([*own, *sorted(getattr(cls, "__abstractmethods__", ()))])
        if missing:
            yield f"must define {', '.join(missing)} (see showhow.{base})"
        members = (name for name in vars(self.base) if not name.startswith("_"))
        yield from filter(None, (_other_form(cls, name, self.base) for name in members))
        if not (cls.__dict__.get("__doc__") or "").strip():
            yield "must have a docstring, whose first paragraph describes it in the catalogue"


_ABSENT = object()
_OPEN: list[Catalogue[Any]] = []
_HOW_NAMED = {True: 'kind: Literal["parity"] = "parity"', False: 'name = "length", other than the built-in metrics'}

C = TypeVar("C", bound=type)


def register(cls: C) -> C:
    """Register a task, a method or a metric by its kind, so that studies can name it. Use it as a decorator or a call;
    it returns the class. The class is sent to the workers of a cluster with the study.

    Raises UserError when the class breaks the contract of its base: it needs a literal `kind` that is not taken, the
    abstract members of its base, and a docstring."""
    for catalogue in _OPEN:
        if isinstance(cls, type) and issubclass(cls, catalogue.base):
            catalogue.add(cls)
            return cls
    bases = ", ".join(f"showhow.{_base_name(catalogue.base)}" for catalogue in _OPEN)
    raise UserError(f"{cls!r} cannot be registered; derive a class from one of {bases}")


def registered() -> tuple[type, ...]:
    """Return all classes that this program has registered."""
    return tuple(cls for catalogue in _OPEN for cls in catalogue.registered)


def _is_inherited(cls: type, name: str, base: Any) -> bool:
    """True where a class does not define a member, or inherits it from the base."""
    there = inspect.getattr_static(cls, name, _ABSENT)
    return there is _ABSENT or there is inspect.getattr_static(base, name, _ABSENT)


def _other_form(cls: type, name: str, base: Any) -> str | None:
    """Return how a member's form differs from the base's: a property, or a function with the same parameters."""
    own, there = inspect.getattr_static(cls, name, None), inspect.getattr_static(base, name)
    if isinstance(there, property):
        return f"must define {name} as a property (@property)" if inspect.isfunction(own) else None
    if not inspect.isfunction(there):
        return None
    takes = list(inspect.signature(there).parameters)
    if inspect.isfunction(own):
        with contextlib.suppress(TypeError):
            inspect.signature(own).bind(*takes)
            return None
    return f"must define {name} as a function of ({', '.join(takes)})"


def _name_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _base_name(base: Any) -> str:
    return " or ".join(one.__name__ for one in base) if isinstance(base, tuple) else str(base.__name__)


Location = tuple[int | str, ...]
_PYDANTIC_ERRORS = frozenset(get_args(core_schema.ErrorType))


def finding(message: str, location: Location = ()) -> InitErrorDetails:
    """Return a fault that a validator found, in the form in which pydantic raises it."""
    return {"type": PydanticCustomError("fault", "{message}", {"message": message}), "loc": location, "input": None}


def found_again(item: Mapping[str, Any], around: Location = ()) -> InitErrorDetails:
    """Return an error of pydantic's in the form in which it can be raised again, with an outer location."""
    if item["type"] not in _PYDANTIC_ERRORS:  # our own, or of an unknown class
        return finding(item.get("ctx", {}).get("message", item["msg"]), (*around, *item["loc"]))
    return {
        "type": item["type"],
        "loc": (*around, *item["loc"]),
        "input": item["input"],
        "ctx": item.get("ctx", {}),
    }


def raise_findings(errors: list[InitErrorDetails]) -> None:
    """Raise pydantic's ValidationError if there are findings."""
    if errors:
        raise ValidationError.from_exception_data("study", errors)


# Marks in the location of a finding: which class read a table, and which of several named tables it was.
KIND_MARK, NAME_MARK = "kind=", "named="


@dataclass(frozen=True)
class ByKind:
    """Annotates a field whose table is read by the class of its `kind`; an instance is not changed. are_named: the
    field may also be a table of such tables, each with its own name."""

    catalogue: Catalogue[Any]
    are_named: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self._read)

    def _read(self, value: Any, info: ValidationInfo) -> Any:
        if not self.are_named or not are_named(value):
            return self._one(value, info, ())
        errors: list[InitErrorDetails] = []
        read = {}
        for name, inner in value.items():
            try:
                read[name] = self._one(inner, info, (f"{NAME_MARK}{name}",))
            except ValidationError as error:
                errors += [found_again(item) for item in error.errors()]
        raise_findings(errors)
        return read

    def _one(self, value: Any, info: ValidationInfo, place: Location) -> Any:
        if isinstance(value, self.catalogue.base):
            return value
        if not isinstance(value, dict):
            raise_findings([{"type": "dict_type", "loc": place, "input": value}])
        cls = self._class_of(value.get("kind"), place)
        try:
            if info.mode == "json":  # pydantic's strict mode accepts a list as a tuple only in JSON
                return cls.model_validate_json(json.dumps(value), strict=True)
            return cls.model_validate(value)
        except ValidationError as error:
            around = (*place, f"{KIND_MARK}{literal_kind(cls)}")
            raise_findings([found_again(item, around) for item in error.errors()])

    def _class_of(self, kind: Any, place: Location) -> Any:
        if isinstance(kind, str):
            try:
                return self.catalogue.find(kind)
            except UserError as error:
                message = str(error)
        else:
            got = "is missing." if kind is None else f"got {json.dumps(kind, default=str)[:60]}."
            message = f"{got} Allowed: {', '.join(self.catalogue.kinds)}"
        raise_findings([finding(message, (*place, "kind"))])
        return None


def are_named(value: Any) -> bool:
    """True for several named tables, false for a single one, whose `kind` is text."""
    return (
        isinstance(value, dict) and bool(value) and all(isinstance(inner, dict | BaseModel) for inner in value.values())
    )
