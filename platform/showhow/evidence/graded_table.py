"""Reads a table of graded answers from any source, and rejects unusable ones. Imports pandas when used.

Faults are UserErrors that name column and row; the first row is 1.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from showhow.errors import UserError, nearest
from showhow.tasks.explain import Level

if TYPE_CHECKING:
    import pandas

NEEDED = ("arm", "seed", "question", "right")
OF_A_RUN = ("validation", "examples", "tokens", "flops")  # the same in all rows of a run
OPTIONAL = ("setting", "trial", "is_control", *OF_A_RUN)

_NAMES = ("arm", "setting", "trial", "question")
_RUN = ["setting", "arm", "trial", "seed"]
_TRUTH = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_LEVELS = [level.value for level in Level]


@dataclass(frozen=True)
class GradedRun:
    """One run of the table. setting: None where the table has no such column; grades: in the same order of questions
    for all runs of a setting; figures: validation, examples, tokens and flops, as far as the table has them."""

    arm: str
    setting: str | None
    trial: str
    seed: int
    is_control: bool
    grades: tuple[bool, ...]
    figures: dict[str, float] = field(default_factory=dict)


def read_table(frame: "pandas.DataFrame | Mapping[str, Sequence[Any]]") -> list[GradedRun]:
    """Return the runs of a table; the order of its rows does not matter. Arms and settings are in category order where
    the column is categorical, else explanation levels from none to long, then others by number or name."""
    table = _checked(_as_frame(frame))
    in_order = table.sort_values(["setting", "arm", "trial", "seed", "question"], kind="stable")
    return list(_runs(in_order, "setting" in frame))


def _as_frame(frame: Any) -> "pandas.DataFrame":
    import pandas

    if isinstance(frame, Mapping):
        frame = {name: _column(name, column) for name, column in frame.items()}
        lengths = {name: len(column) for name, column in frame.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
            raise UserError(f"the columns of a table are equally long; got {listed}")
        frame = pandas.DataFrame(frame)
    if not isinstance(frame, pandas.DataFrame):
        raise UserError(f"a table is a pandas DataFrame or a mapping of columns by name; got {type(frame).__name__}")
    columns = [str(name) for name in frame.columns]
    for name in NEEDED:
        if name not in columns:
            raise UserError(
                f'the table has no column "{name}".{nearest(name, columns)} Needed: {", ".join(NEEDED)}. '
                f"Also allowed: {', '.join(OPTIONAL)}. Got: {', '.join(columns) or 'no column'}"
            )
    used = [name for name in (*NEEDED, *OPTIONAL) if name in columns]
    doubled = next((name for name in used if columns.count(name) > 1), None)
    if doubled is not None:
        raise UserError(f'the table has two columns "{doubled}"; remove one')
    if len(frame) == 0:
        raise UserError("the table has no rows; it needs one per run and question")
    return frame[used].reset_index(drop=True)


def _column(name: str, column: Any) -> list[Any]:
    if isinstance(column, str) or not isinstance(column, Iterable):
        raise UserError(f'column "{name}" must be a sequence of values; got {column!r}')
    return list(column)


def _checked(frame: "pandas.DataFrame") -> "pandas.DataFrame":
    """Return the table with every column that identifies a run, each value of its type."""
    import pandas

    for name in frame.columns:
        missing = frame[name].isna().to_numpy()
        if missing.any():
            raise UserError(f'column "{name}", row {int(missing.argmax()) + 1}: the value is missing (empty or NaN)')
    table = pandas.DataFrame({name: _names(frame[name]) for name in _NAMES if name in frame})
    table["seed"] = _each(frame["seed"], _integer, "a whole number")
    table["right"] = _each(frame["right"], _truth, "true or false, 1 or 0")
    table["setting"] = table.get("setting", "")
    table["trial"] = table.get("trial", table["arm"].astype(str))
    given = "is_control" in frame
    table["is_control"] = _each(frame["is_control"], _truth, "true or false, 1 or 0") if given else False
    for name in OF_A_RUN:
        if name in frame:
            allowed, convert = ("a share from 0 to 1", _share) if name == "validation" else ("0 or more", _amount)
            table[name] = _each(frame[name], convert, allowed)
    _check_runs(table)
    return table


def _names(column: "pandas.Series") -> "pandas.Series":
    """Return names as ordered categories."""
    import pandas

    texts = _each(column, _text, "text or a number, not blank")
    if isinstance(column.dtype, pandas.CategoricalDtype):
        categories = [_text(value) for value in column.cat.categories]
    else:
        categories = sorted(texts.unique(), key=_sort_key)
    return pandas.Series(pandas.Categorical(texts, categories=categories, ordered=True))


def _sort_key(name: str) -> tuple[int, float, str]:
    """Return the sort key of a name: levels first, then numbers, then the rest by name."""
    if name in _LEVELS:
        return 0, _LEVELS.index(name), name
    try:
        return 1, float(name), name
    except ValueError:
        return 2, 0.0, name


def _each(column: "pandas.Series", convert: Callable[[Any], Any], allowed: str) -> "pandas.Series":
    """Return the column with every value converted. Raises UserError for the first invalid one."""
    values = list(column.astype(object))
    converted: dict[tuple[type, Any], Any] = {}
    for row, value in enumerate(values, start=1):
        try:
            if _key(value) not in converted:
                converted[_key(value)] = convert(value)
        except (ValueError, TypeError, KeyError, OverflowError):
            raise UserError(f'column "{column.name}", row {row}: got {value!r}, must be {allowed}') from None
    import pandas

    return pandas.Series([converted[_key(value)] for value in values], name=column.name)


def _key(value: Any) -> tuple[type, Any]:
    return type(value), value  # as True == 1


def _text(value: Any) -> str:
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    if not text.strip():
        raise ValueError(text)
    return text


def _integer(value: Any) -> int:
    number = int(value) if isinstance(value, str) else value
    if _is_truth(number) or number != int(number):
        raise ValueError(value)
    return int(number)


def _truth(value: Any) -> bool:
    return _TRUTH[value.strip().lower()] if isinstance(value, str) else {True: True, False: False}[value]


def _amount(value: Any) -> float:
    number = float(value)
    if _is_truth(value) or not math.isfinite(number) or number < 0:
        raise ValueError(value)
    return number


def _share(value: Any) -> float:
    number = _amount(value)
    if number > 1:
        raise ValueError(value)
    return number


def _is_truth(value: Any) -> bool:
    return type(value).__name__ in ("bool", "bool_")


def _check_runs(table: "pandas.DataFrame") -> None:
    """Raise UserError for questions graded twice, values that differ within a run, or runs on other questions."""
    key = [*_RUN, "question"]
    repeated = table.duplicated(key).to_numpy()
    if repeated.any():
        row = int(repeated.argmax())
        earlier = next(
            place for place in range(row) if all(table.at[place, name] == table.at[row, name] for name in key)
        )
        raise UserError(
            f"rows {earlier + 1} and {row + 1} both grade question {table.loc[row, 'question']!r} of "
            f"{_called(table.loc[row])}; a run answers each question once. If these are runs with "
            "different hyperparameters, add a column trial"
        )
    _check_constant(table, ["arm"], "is_control", "an arm is a control or not")
    for name in OF_A_RUN:
        if name in table:
            _check_constant(table, _RUN, name, "it must be the same in all rows of a run")
    _check_questions(table)


def _check_constant(table: "pandas.DataFrame", of: list[str], name: str, because: str) -> None:
    firsts = table.groupby(of, observed=True)[name].transform("first")
    differs = (firsts != table[name]).to_numpy()
    if differs.any():
        row = int(differs.argmax())
        raise UserError(
            f'column "{name}", row {row + 1}: got {table.loc[row, name]!r} where an earlier row of '
            f"{_called(table.loc[row])} has {firsts[row]!r}; {because}"
        )


def _check_questions(table: "pandas.DataFrame") -> None:
    for _, inside in table.groupby("setting", observed=True):
        runs = [(rows.iloc[0], set(rows["question"])) for _, rows in inside.groupby(_RUN, observed=True)]
        first, questions = runs[0]
        for run, others in runs[1:]:
            if others != questions:
                apart = sorted(questions ^ others)[0]
                raise UserError(
                    f"{_called(first)} was graded on {len(questions):,} questions and {_called(run)} on "
                    f"{len(others):,}, not the same ones: only one of them has {apart!r}. All runs of a setting must "
                    "answer the same questions; grade them on the same test set, or separate them by a column setting"
                )


def _called(row: Any) -> str:
    place = f"setting {row['setting']}, " if row["setting"] else ""
    trial = f"trial {row['trial']}, " if row["trial"] != row["arm"] else ""
    return f"the run ({place}arm {row['arm']}, {trial}seed {row['seed']})"


def _runs(table: "pandas.DataFrame", has_settings: bool) -> Iterator[GradedRun]:
    figures = [name for name in OF_A_RUN if name in table]
    for _, rows in table.groupby(_RUN, observed=True, sort=False):
        first = rows.iloc[0]
        yield GradedRun(
            arm=str(first["arm"]),
            setting=str(first["setting"]) if has_settings else None,
            trial=str(first["trial"]),
            seed=int(first["seed"]),
            is_control=bool(first["is_control"]),
            grades=tuple(bool(right) for right in rows["right"]),
            figures={name: float(first[name]) for name in figures},
        )
