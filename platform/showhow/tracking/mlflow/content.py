"""What MLflow shows of each event: names, tags, params, notes, tables. Pure; `runs.py` sends it."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from showhow.fingerprint import Json
from showhow.tracking.address import redact
from showhow.tracking.tracker import (
    Event,
    Reported,
    RunEnded,
    RunNoted,
    RunStarted,
    StageEnded,
    StudyEnded,
    StudyStarted,
)

# Limits of MLflow 3.17, mlflow/utils/validation.py.
METRICS_PER_BATCH, PARAMS_PER_BATCH, BYTES_PER_BATCH = 1000, 100, 500_000  # a request also contains metrics and tags
LONGEST_PARAM, LONGEST_TAG, LONGEST_KEY = 6000, 8000, 250
LONGEST_DATASET_NAME, LONGEST_DIGEST = 500, 36

# MLflow's status for each status of a run. Runs that ended before their budget are KILLED, so that
# `attributes.status = 'FINISHED'` finds comparable runs. MLflow draws KILLED like FAILED, so our views also show the
# tag `showhow.status`.
MLFLOW_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "interrupted": "KILLED", "failed": "FAILED"}

STUDY_ID, RUN, NOTES = "showhow.study_id", "showhow.run", "showhow.notes"
# What MLflow's pages show as a run's description, in Markdown.
DESCRIPTION = "mlflow.note.content"


def run_name(event: RunStarted) -> str:
    """Return the name people read: `long · trial-003 · seed 1`."""
    return f"{event.arm} · {event.trial} · seed {event.seed}"


def study_tags(event: StudyStarted, study_id: str) -> dict[str, str]:
    """Return the tags of the study's parent run."""
    tags = {"showhow.study": event.study, STUDY_ID: study_id, "showhow.kind": "study", "showhow.status": "running"}
    return _clean_tags({**tags, DESCRIPTION: f"Question: {event.question}"})


def run_tags(event: RunStarted, study: str, study_id: str) -> dict[str, str]:
    """Return the tags of one run; `study` and `study_id` name the study it belongs to."""
    tags = {"showhow.study": study, STUDY_ID: study_id, "showhow.kind": "run", RUN: event.run}
    setting = {f"showhow.setting.{axis}": str(value) for axis, value in event.setting.items()}
    fields = {
        "trial": event.trial,
        "seed": event.seed,
        "arm": event.arm,
        "level": event.level,
        "attempt": event.attempt,
    }
    named = {f"showhow.{key}": str(value) for key, value in fields.items()}
    return _clean_tags({**tags, **named, **setting, "showhow.status": "running"})


def end_tags(event: RunEnded, notes: str) -> dict[str, str | None]:
    """Return the tags of a run that ended; `notes`: of the run. None removes a tag of an earlier attempt."""
    ending = {
        "finished": None,
        "stopped": f"Stopped early by the rule {event.stopped_by}.",
        "interrupted": "Interrupted: continues when the study is resumed.",
        "failed": f"Failed: {event.reason}",
    }
    tags = {"showhow.status": event.status, "showhow.stopped_by": event.stopped_by, "showhow.reason": event.reason}
    tags[DESCRIPTION] = described(notes, ending[event.status])
    present = _clean_tags({key: value for key, value in tags.items() if value is not None})
    return {key: present.get(key) for key in tags}


def with_note(notes: str, event: RunNoted) -> str:
    """Return a run's notes, one per line, with this one added if it is new."""
    when = datetime.fromtimestamp(event.seconds_since_epoch, UTC)
    line = f"{when:%Y-%m-%d %H:%M:%S} UTC, {event.examples:,} examples, {event.kind}: {event.text}"
    line = _shorten(redact(" ".join(line.split())), LONGEST_TAG)
    lines = notes.splitlines()
    return notes if line in lines else _shorten("\n".join([*lines, line]), LONGEST_TAG)


def described(notes: str, ending: str | None = None) -> str | None:
    """Return a run's description: how it ended, and a list of its notes; None where there is neither."""
    text = "\n".join([*([ending, ""] if ending else []), *(f"- {line}" for line in notes.splitlines())])
    return _shorten(text.rstrip("\n"), LONGEST_TAG) or None


def study_end_tags(event: StudyEnded, question: str) -> dict[str, str]:
    """Return the tags of the parent run of a study that ended."""
    note = f"Question: {question}\n\nAnswer: {event.conclusion}"
    return _clean_tags({"showhow.status": event.status, "showhow.conclusion": event.conclusion, DESCRIPTION: note})


def flatten(value: Mapping[str, Json], prefix: str = "") -> dict[str, str]:
    """Return nested settings as MLflow params: `{"a": {"b": 1}}` is `{"a.b": "1"}`; lists become JSON."""
    params: dict[str, str] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, dict) and inner:
            params.update(flatten(inner, f"{name}."))
        else:
            text = inner if isinstance(inner, str) and inner else json.dumps(inner, ensure_ascii=False)
            params[mlflow_key(name)] = _shorten(redact(text), LONGEST_PARAM)
    return params


def mlflow_key(name: str) -> str:
    """Return the name of a metric or a param with the characters replaced that MLflow does not allow: an arm may be
    called `plain, long`."""
    return re.sub(r"[^/\w.\- :]", "_", name)[:LONGEST_KEY]


def in_batches(params: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield params in batches that fit one request."""
    batch: dict[str, str] = {}
    size = 0
    for key, value in params.items():
        added = len(json.dumps(key)) + len(json.dumps(value))
        if batch and (len(batch) == PARAMS_PER_BATCH or size + added > BYTES_PER_BATCH):
            yield batch
            batch, size = {}, 0
        batch[key] = value
        size += added
    if batch:
        yield batch


def dataset_fields(role: str, manifest: Mapping[str, Json]) -> dict[str, str]:
    """Return name, digest, source and profile of a dataset from its manifest.

    Read where present: fingerprint, name, task, level, path; every other number, text or flag is put in the profile.
    """
    parts = [str(manifest[key]) for key in ("task", "level") if isinstance(manifest.get(key), str)]
    name = str(manifest.get("name") or " · ".join([*parts, role]))
    facts = {key: value for key, value in manifest.items() if isinstance(value, str | int | float) and key != "path"}
    return {
        "name": name[:LONGEST_DATASET_NAME],
        "digest": str(manifest.get("fingerprint", "unknown"))[:LONGEST_DIGEST],
        "source": redact(json.dumps({"uri": manifest.get("path", "")})),
        "profile": redact(json.dumps(facts, ensure_ascii=False)),
    }


def table_json(rows: list[dict[str, Json]]) -> str:
    """Return rows as the JSON that MLflow's UI shows as a table (pandas' orient "split", as `log_table` writes it)."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    data = [[_cell(row.get(column)) for column in columns] for row in rows]
    return json.dumps({"columns": columns, "data": data}, ensure_ascii=False)


def stage_rows(stages: Iterable[StageEnded]) -> list[dict[str, Json]]:
    """Return a row for each stage that a run has used, with its cost."""
    return [
        {
            "stage": stage.operation,
            "reused": stage.is_reused,
            "examples": stage.examples,
            "tokens": stage.tokens,
            "FLOPs": stage.flops,
            "seconds": round(stage.seconds, 3),
            "address": stage.address,
        }
        for stage in stages
    ]


def pack(events: list[Event]) -> list[list[Event]]:
    """Return parcels to send in order: each is one event of the study, or events of one run that fit one request.

    A start is the first of its parcel, an end the last. Events of different runs may be reordered; those of one run are
    not, and no event is reordered with one of the study.
    """
    parcels: list[list[Event]] = []
    open_parcels: dict[str, tuple[list[Event], int]] = {}
    for event in events:
        if isinstance(event, StudyStarted | StudyEnded):
            open_parcels.clear()
            parcels.append([event])
            continue
        added = len(event.metrics) if isinstance(event, Reported) else 0
        parcel, size = open_parcels.get(event.run, ([], 0))
        if not parcel or isinstance(event, RunStarted) or size + added > METRICS_PER_BATCH:
            parcel, size = [], 0
            parcels.append(parcel)
        parcel.append(event)
        open_parcels[event.run] = (parcel, size + added)
        if isinstance(event, RunEnded):
            del open_parcels[event.run]
    return parcels


def _cell(value: Json) -> Json:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: _shorten(redact(value), LONGEST_TAG) for key, value in tags.items()}


def _shorten(text: str, longest: int) -> str:
    """Cut `text` to `longest` characters, with a note at its end; the same text is always cut the same way."""
    if len(text) <= longest:
        return text
    ending = f"... ({len(text):,} characters)"
    return text[: longest - len(ending)] + ending
