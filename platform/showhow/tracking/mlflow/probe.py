"""Checks once whether a tracking server or database can be used. It imports mlflow, so `tracker.py` imports it late."""

import socket

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from showhow.tracking.address import is_server, redact

_DEFAULT_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def find_problem(uri: str, timeout_seconds: float) -> str | None:
    """Try the server or database at `uri` once; return in one line, without secrets, why it cannot be used, or None."""
    try:
        if is_server(uri):
            MlflowClient(uri).search_experiments(max_results=1)
        else:
            _connect(uri, timeout_seconds)
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        cause: BaseException = error
        while cause.__context__ is not None:
            cause = cause.__context__
        return redact(" ".join(str(cause).split()))[:300]
    return None


def _connect(uri: str, timeout_seconds: float) -> None:
    """Load the driver of a database server and open a connection; its tables are created later, in the background."""
    url = make_url(uri)
    url.get_dialect().import_dbapi()
    port = url.port or _DEFAULT_PORTS.get(url.get_backend_name(), 0)
    socket.create_connection((url.host or "localhost", port), timeout_seconds).close()
