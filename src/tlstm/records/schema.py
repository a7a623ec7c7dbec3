"""The record of a run: its schema, and how it is written and read.

A run leaves one record, `runs/<experiment>/<run>/record.json`. Accuracies are fractions from
0 to 1, times are seconds except where a name says milliseconds.
"""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tlstm.utils import printable, read_regular, replace_file

LARGEST = 2**26  # bytes of a record, and of a line of a store
MOST = 10**15  # of anything counted: tables and pictures compute with it exactly
NODES = ("task", "model", "model.core", "initialization", "sampling", "training", "trainer")
NUMBERS = (  # of a configuration, which pages compute with
    *("task.base", "task.alphabet", "model.core.kernel_size"),
    *("training.batch_size", "training.samples_per_epoch"),
)


def _none_if_diverged(value: object) -> object:
    """Return None for a NaN or infinite loss, which JSON cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _diverged_metrics(metrics: object) -> object:
    """Return None for non-finite metrics but the accuracy, whose NaN could only be a mistake."""
    if not isinstance(metrics, dict):
        return metrics
    return {
        name: value if name == "accuracy" else _none_if_diverged(value)
        for name, value in metrics.items()
    }


def _with_accuracy(metrics: dict[str, float | None]) -> dict[str, float | None]:
    """Refuse an accuracy that is no fraction."""
    accuracy = metrics.get("accuracy")
    if accuracy is not None and not 0 <= accuracy <= 1:
        raise PydanticCustomError("accuracy", "accuracy must be a number from 0 to 1")
    return metrics


def _one_line(text: str) -> str:
    """Refuse a text that a picture or a table cannot show: `$` begins mathematics in a picture."""
    if not text.isprintable() or "$" in text:
        raise PydanticCustomError("line", "must be one line of printable characters, without $")
    return text


def _drawable(config: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Refuse a configuration whose parts are not what pages read."""
    for name in NODES:
        if not isinstance(_at(config, name, {}), dict):
            raise PydanticCustomError("node", f"{name} must hold settings by their names")
    for name in NUMBERS:
        value = _at(config, name, 1)
        if type(value) is not int or not 0 < value <= MOST:
            raise PydanticCustomError("number", f"{name} must be an integer of at least 1")
    return config


def _at(config: JsonValue, name: str, missing: JsonValue) -> JsonValue:
    """Return what a configuration holds at a dotted name."""
    for part in name.split("."):
        config = config.get(part, missing) if isinstance(config, dict) else missing
    return config


FORMAT_1 = "format 1; `python -m tlstm.results migrate` of commit 6346235 brings it to format 2"


def _of_today(number: object) -> object:
    """Refuse a record of an earlier format with what to do about it."""
    if number == 1:
        raise PydanticCustomError("format", FORMAT_1)
    return number


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
Label = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]
Identifier = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Count = Annotated[int, Field(ge=0, le=MOST)]
Size = Annotated[int, Field(ge=1, le=MOST)]
Seconds = Annotated[float, Field(ge=0, le=MOST)]
Fraction = Annotated[float, Field(ge=0, le=1)]
FIRST, LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
Time = Annotated[AwareDatetime, Field(ge=FIRST, le=LAST)]  # which tables can hold
Outcome = Literal["solved", "stopped early", "budget spent", "diverged"]
Loss = Annotated[float | None, BeforeValidator(_none_if_diverged)]
Positions = Annotated[list[Fraction] | None, Field(exclude_if=lambda value: value is None)]
Metrics = Annotated[
    dict[Name, float | None], BeforeValidator(_diverged_metrics), AfterValidator(_with_accuracy)
]


class Frozen(BaseModel):
    """A part of a record: nothing unknown, nothing infinite, nothing that changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Part = TypeVar("Part", bound=Frozen)


class CurvePoint(Frozen):
    """One validation during training.

    Attributes:
        samples: training samples seen so far.
        accuracy: validation accuracy, a fraction.
        loss: validation loss; None where it was not finite.
        seconds: wall time spent on training so far.
        positions: validation accuracy at each position of the answer; None where not measured.
    """

    samples: Count
    accuracy: Fraction
    loss: Loss
    seconds: Seconds
    positions: Positions = None


class Hardware(Frozen):
    """Hardware of a run.

    Attributes:
        device: "NVIDIA H200", or the processor's name.
        devices: number of such devices.
        cores: processor cores of the machine.
        threads: threads that the run computed with.
        system: operating system.
    """

    device: Label
    devices: Size
    cores: Size
    threads: Size
    system: Label


class Record(Frozen):
    """One run: what ran, how it went and on what.

    Attributes:
        format: version of this schema.
        identifier: 16 hexadecimal digits, a hash of the settings that decide the result.
        former_identifiers: those that it had in earlier formats, the oldest first.
        experiment: directory under runs/ and results/, "fig4".
        scale: "smoke", "short" or "paper".
        task: "addition", "memorization", ...
        model: the configuration's name, "tlstm_3d_cn".
        label: the paper's name, "3D tLSTM+CN".
        depth: L.
        channels: M.
        seed: the run's seed.
        parameters: number of trained parameters.
        samples: training samples seen.
        samples_to_threshold: training samples seen when the validation accuracy first passed
            the threshold, None if it never did.
        threshold: the accuracy that counts as solved, a fraction.
        best: validation metrics at the point that `selected_by` chose; "accuracy" among them.
        last: validation metrics at the end.
        test: test metrics. In all three a non-finite metric other than the accuracy is None:
            the run diverged, and its record is still written.
        selected_by: the rule that chose `best`.
        milliseconds_per_timestep: of one forward and backward pass for a single example: batch
            time / (timesteps x batch) [paper].
        wall_seconds: of the whole run.
        device_seconds: wall seconds times devices.
        outcome: how it ended.
        curve: validations in the order of their samples.
        started: with its time zone.
        finished: with its time zone.
        commit: of the code, None outside of a repository.
        modified: whether the code had changes that no commit holds.
        versions: of the packages that matter; "openmp" is how its threads wait, if that was set.
        hardware: what it ran on.
        overrides: arguments of `python -m tlstm.train` that repeat the run.
        config: the full resolved configuration.
    """

    format: Annotated[Literal[2], BeforeValidator(_of_today)] = 2
    identifier: Identifier
    former_identifiers: list[Identifier] = []
    experiment: Name
    scale: Name
    task: Name
    model: Name
    label: Label
    depth: Size
    channels: Size
    seed: Count
    parameters: Count
    samples: Count
    samples_to_threshold: Count | None
    threshold: Fraction
    best: Metrics
    last: Metrics
    test: Metrics
    selected_by: str
    milliseconds_per_timestep: Seconds
    wall_seconds: Seconds
    device_seconds: Seconds
    outcome: Outcome
    curve: list[CurvePoint]
    started: Time
    finished: Time
    commit: str | None
    modified: bool
    versions: dict[str, str]
    hardware: Hardware
    overrides: list[str]
    config: Annotated[dict[str, JsonValue], AfterValidator(_drawable)]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Record":
        if self.finished < self.started:
            raise ValueError("finished must not be before started")
        if self.outcome == "solved" and self.samples_to_threshold is None:
            raise ValueError('samples_to_threshold must be a number where outcome is "solved"')
        seen = [point.samples for point in self.curve]
        if seen != sorted(seen):
            raise ValueError("curve must be in the order of its samples")
        return self

    @property
    def key(self) -> tuple[str, datetime]:
        """Identifier and start, which two records of the same run share."""
        return self.identifier, self.started


def write_record(record: Record, path: Path) -> None:
    """Write a run's record, whole or not at all.

    Raises:
        OSError: the file could not be written; the message names it.
    """
    replace_file(path, (record.model_dump_json(indent=1) + "\n").encode())


def read_record(path: Path) -> Record:
    """Read a run's record.

    Raises:
        OSError: the file could not be read.
        ValueError: it is not a valid record; the message names it and what is wrong.
    """
    return parse_record(read_regular(path, LARGEST), printable(path))


def parse_record(content: bytes, place: str, experiment: str | None = None) -> Record:
    """Return a record from its JSON.

    Args:
        content: the JSON.
        place: where it came from, for the message.
        experiment: that it must be of, None for any.

    Raises:
        ValueError: it is not a valid record; the message names the place and what is wrong.
    """
    record = parse(Record, content, place, "record")
    if experiment not in (None, record.experiment):
        raise ValueError(
            f"{place} is not a valid record: experiment: it is a record of {record.experiment}, "
            f"not of {experiment}"
        )
    return record


def parse(kind: type[Part], content: bytes, place: str, name: str) -> Part:
    """Return what JSON holds.

    Args:
        kind: what it must be.
        content: the JSON.
        place: where it came from, for the message.
        name: of such a thing, for the message.

    Raises:
        ValueError: it is none; the message names the place and the first thing that is wrong, with
            its field: "depth: Input should be ...".
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        fault = ": ".join([".".join(map(printable, first["loc"])), first["msg"]]).removeprefix(": ")
        raise ValueError(f"{place} is not a valid {name}: {fault}") from error
