"""Finds the line of each key in a TOML text that is known to be valid; `tomllib` reads the values."""

import re

# The tokens of a valid text: a comment, a string of each kind, a structural character, anything else.
_TOKEN = re.compile(
    r'#[^\n]*|"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\])*"|\'[^\']*\'|[\[\]{}=,.\n]|[^\s\[\]{}=,.#"\']+',
    re.DOTALL,
)


def key_lines(text: str) -> dict[str, int]:
    """Return the 1-based line of each dotted key and section, keys inside inline tables included; where a key is named
    several times (`[a]` and `a.b`), the first."""
    return _Scanner(text).scan()


class _Scanner:
    """Walks over the tokens once, line by line: a section header, or keys with their value."""

    def __init__(self, text: str) -> None:
        self._tokens = [("\n", 0)]
        number, end = 1, 0
        for found in _TOKEN.finditer(text):
            number += text.count("\n", end, found.start())
            end = found.start()
            if not found[0].startswith("#"):
                self._tokens.append((found[0], number))
        self._tokens.append(("\n", number))
        self._at = 0
        self._lines: dict[str, int] = {}

    def scan(self) -> dict[str, int]:
        section = ""
        while self._at < len(self._tokens):
            if self._peek() == "\n":
                self._at += 1
            elif self._peek() == "[":
                self._skip("[")
                section = self._key("")
                self._skip("]")
            else:
                self._entry(section)
        return self._lines

    def _peek(self) -> str:
        return self._tokens[self._at][0]

    def _skip(self, *signs: str) -> None:
        while self._peek() in signs:
            self._at += 1

    def _entry(self, section: str) -> None:
        key = self._key(section)
        self._skip("=")
        self._value(key)

    def _key(self, section: str) -> str:
        """Read `a."b".c`, note the line of each part, and return the full name."""
        name = section
        while self._peek() not in ("=", "]"):
            part, number = self._tokens[self._at]
            self._at += 1
            if part != ".":
                name = f"{name}.{_bare(part)}".lstrip(".")
                self._lines.setdefault(name, number)
        return name

    def _value(self, key: str) -> None:
        if self._peek() == "{":
            self._table(key)
        elif self._peek() == "[":
            self._list()
        else:
            while self._peek() not in (",", "}", "\n"):
                self._at += 1

    def _table(self, key: str) -> None:
        self._at += 1
        self._skip("\n", ",")
        while self._peek() != "}":
            self._entry(key)
            self._skip("\n", ",")
        self._at += 1

    def _list(self) -> None:
        """Skip a list and everything nested in it."""
        depth = 0
        while True:
            depth += (self._peek() in ("[", "{")) - (self._peek() in ("]", "}"))
            self._at += 1
            if depth == 0:
                return


def _bare(part: str) -> str:
    return part[1:-1] if part[0] in "\"'" else part
