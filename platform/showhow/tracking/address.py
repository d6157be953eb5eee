"""The address of the tracking data: finding it, checking it, and removing secrets from texts that contain it."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from showhow.errors import UserError

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")  # MLflow's, mlflow.store.db.db_types
_EMBEDDED = "Do: unset MLFLOW_TRACKING_URI to use the embedded store"


def tracking_uri(home: Path) -> str:
    """Return MLFLOW_TRACKING_URI where it is set, else the embedded store: a sqlite file in `home`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home.resolve()}/mlflow.db"


def redact(text: str) -> str:
    """Return `text` without the passwords in `scheme://user:password@host`, `?token=...` and similar parts."""
    text = re.sub(r"(://)[^/\s'\"]*@", r"\1***@", text)
    return re.sub(r"(?i)([?&](?:password|passwd|pwd|token|secret|api_?key|access_?key|sig)=)[^&\s'\"]+", r"\1***", text)


def is_server(uri: str) -> bool:
    """Return whether `uri` is an MLflow server, not a database that MLflow opens itself."""
    return urlsplit(uri).scheme in ("http", "https")


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a sqlite address, or None for any other address."""
    scheme, _, rest = uri.partition(":///")
    return Path(rest.partition("?")[0]) if scheme.split("+")[0] == "sqlite" and rest else None


@contextmanager
def creating(uri: str) -> Iterator[None]:
    """Wait until no other process creates the tables of a sqlite file: two that do so at once break each other's work.
    Other addresses are not waited for."""
    file = sqlite_file(uri)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{file}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def artifact_location(uri: str) -> str | None:
    """Return where a new experiment stores its files: next to a sqlite file; None lets the server decide."""
    file = sqlite_file(uri)
    return None if file is None else (file.resolve().parent / "artifacts").as_uri()


def check_address(uri: str) -> None:
    """Raise UserError for an address that MLflow 3.17 cannot use. Creates the folder of a sqlite file."""
    scheme = urlsplit(uri).scheme.split("+")[0]
    if uri == "databricks" or scheme in ("http", "https", "databricks"):
        return
    if scheme not in DATABASES:
        raise UserError(
            f'tracking address "{redact(uri)}": MLflow keeps no runs in plain folders any more. '
            "Allowed: sqlite:///PATH/mlflow.db, http(s)://SERVER, postgresql://..., mysql://... "
            f"{_EMBEDDED}, or set it to sqlite:///{Path(uri.removeprefix('file://')).absolute()}/mlflow.db."
        )
    file = sqlite_file(uri)
    if scheme == "sqlite":
        if file is None:
            raise UserError(
                f'tracking address "{redact(uri)}" names no file. Allowed: sqlite:///PATH/mlflow.db. {_EMBEDDED}.'
            )
        _check_file(file)


def _check_file(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab+") as opened:
            opened.seek(0)
            start = opened.read(16)
    except OSError as error:
        raise UserError(
            f"tracking file {file}: {error.strerror}. Allowed: a file that can be created and written. "
            f"{_EMBEDDED} in another folder, or change this folder's permissions."
        ) from error
    if start not in (b"", b"SQLite format 3\x00"):  # https://www.sqlite.org/fileformat.html, section 1.3
        raise UserError(
            f"tracking file {file} is not a sqlite database. Allowed: a new file, or one that MLflow wrote. "
            "Do: name another file."
        )
