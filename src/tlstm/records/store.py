"""The committed store of records, from which every figure and table is made.

`results/<experiment>/records.jsonl` holds a record a line. Lines are only ever added.
"""

import shlex
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tlstm.records.lines import add_lines, read_store
from tlstm.records.measurement import EXPERIMENT as RUNTIME
from tlstm.records.schema import CurvePoint, Hardware, Record, parse_record
from tlstm.utils import sentence

CURVE_POINTS = 120
MOMENTS = ("best", "last", "test")
NESTED = (  # what no row of a frame holds
    *("format", "former_identifiers", "curve"),
    *("config", "versions", "hardware", "overrides"),
)
Known = dict[object, Record]  # by run and by identifier


def thin(
    curve: Sequence[CurvePoint], threshold: float, limit: int = CURVE_POINTS
) -> list[CurvePoint]:
    """Thin a curve to `limit` points, spread evenly over its points and over their logarithm.

    The first point, the last, the best accuracy, the lowest loss and the first to reach the
    threshold and to pass it always stay.

    Args:
        curve: validations in the order of their samples.
        threshold: accuracy that counts as solved, a fraction.
        limit: 8 or more.
    """
    if limit < 8:
        raise ValueError(f"limit must be 8 or more, got {limit}")
    count = len(curve)
    if count <= limit:
        return list(curve)
    accuracy = np.array([point.accuracy for point in curve])
    loss = np.array([np.inf if point.loss is None else point.loss for point in curve])
    passes = [(accuracy >= threshold).argmax(), (accuracy > threshold).argmax()]
    marks = [accuracy.argmax(), loss.argmin(), *passes]
    each = (limit - len(marks)) // 2
    even = np.linspace(0, count - 1, each)
    early = np.geomspace(1, count, each) - 1
    kept = np.unique(np.concatenate([even, early, marks]).round().astype(int))
    return [curve[index] for index in kept]


def append(records: Iterable[Record], results_dir: Path) -> tuple[int, list[str]]:
    """Append records to results/<experiment>/records.jsonl, leaving out those already there.

    Args:
        records: of any experiments; their curves are thinned.
        results_dir: the directory of all results.

    Returns:
        The number of records that were new, and a sentence for each that was left out because it
        contradicts another of its store.

    Raises:
        OSError: a store could not be locked or written.
        ValueError: a line of a store is not a valid record; nothing is written to that store.
    """
    stores: dict[str, list[Record]] = {}
    for record in records:
        stores.setdefault(record.experiment, []).append(record)
    contradictions: list[str] = []

    def new(group: list[Record], there: list[Record]) -> list[Record]:
        known: Known = {}
        for record in there:
            note(record, known)
        added = []
        for record in group:
            is_new = record.key not in known
            try:
                note(record, known)
            except ValueError as error:
                contradictions.append(str(error))
                continue
            if is_new:
                curve = thin(record.curve, record.threshold)
                added.append(record.model_copy(update={"curve": curve}))
        return added

    count = sum(
        add_lines(_path(results_dir, experiment), _parser(experiment), partial(new, group))
        for experiment, group in stores.items()
    )
    return count, contradictions


def note(record: Record, known: Known) -> None:
    """Note a record among others, by its run and by its identifier.

    Raises:
        ValueError: it contradicts one of them: the same run has another result, or the identifier
            is that of other settings.
    """
    name = f"{record.task}-{record.model}-L{record.depth}-seed{record.seed}-{record.identifier}"
    if _measured(known.get(record.key, record)) != _measured(record):
        raise ValueError(f"started: {name}, {record.started}, has another result elsewhere")
    if _settings(known.get(record.identifier, record)) != _settings(record):
        raise ValueError(f"identifier: that of {name} is also that of other settings")
    known |= {record.key: record, record.identifier: record}


def _measured(record: Record) -> dict[str, Any]:
    return record.model_dump(include={*MOMENTS, "finished", "samples", "samples_to_threshold"})


def _settings(record: Record) -> tuple[object, ...]:
    return record.task, record.model, record.depth, record.channels, record.seed


def _path(results_dir: Path, experiment: str) -> Path:
    return results_dir / experiment / "records.jsonl"


def _parser(experiment: str) -> Callable[[bytes, str], Record]:
    """Return what reads the lines of one store, whose records must agree with each other."""
    known: Known = {}

    def parse(line: bytes, place: str) -> Record:
        record = parse_record(line, place, experiment)
        try:
            note(record, known)
        except ValueError as error:
            raise ValueError(f"{place} is not a valid record: {error}") from error
        return record

    return parse


def load(results_dir: Path, experiment: str) -> list[Record]:
    """Return the committed records of an experiment in the order they were taken in; [] if none.

    Raises:
        OSError: the store cannot be read.
        ValueError: a line is not a valid record, is of another experiment or contradicts an
            earlier line; the message names the file, the line and the field.
    """
    return read_store(_path(results_dir, experiment), _parser(experiment))


def load_all(results_dir: Path) -> tuple[dict[str, list[Record]], list[str]]:
    """Return the records of every store that can be read, by experiment.

    Returns:
        The records, and one sentence for each store that holds something else.
    """
    stores, problems = dict[str, list[Record]](), list[str]()
    for path in sorted(results_dir.glob("*/records.jsonl")):
        if path.parent.name != RUNTIME:
            try:
                stores[path.parent.name] = load(results_dir, path.parent.name)
            except (OSError, ValueError) as error:
                problems.append(sentence(error))
    return stores, problems


def latest(records: Iterable[Record]) -> list[Record]:
    """Return the record that finished last for every identifier."""
    newest: dict[str, Record] = {}
    for record in records:
        other = newest.get(record.identifier)
        if other is None or record.finished >= other.finished:
            newest[record.identifier] = record
    return list(newest.values())


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return one flat row per run, without its curve, configuration and versions.

    Metrics become columns best_accuracy, test_loss, ...; `command` repeats the run. Without a run
    there are the columns alone.
    """
    kinds = {"samples_to_threshold": "Int64"} | {f"{moment}_accuracy": float for moment in MOMENTS}
    rows = [_row(record) for record in records]
    columns = None if rows else [*Record.model_fields, *Hardware.model_fields, *kinds, "command"]
    table = pd.DataFrame(rows, columns=columns and list(dict.fromkeys(columns)))
    return table.astype(kinds)


def _row(record: Record) -> dict[str, Any]:
    row = record.model_dump(exclude={*NESTED, *MOMENTS})
    for moment in MOMENTS:
        metrics: dict[str, float | None] = {"accuracy": None, **getattr(record, moment)}
        row |= {f"{moment}_{name}": value for name, value in metrics.items()}
    row |= {name: row[name].astimezone(UTC) for name in ("started", "finished")}
    command = shlex.join(["python", "-m", "tlstm.train", *record.overrides])
    return row | record.hardware.model_dump() | {"command": command}
