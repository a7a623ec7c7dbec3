"""Sweep files in W&B's format, read without W&B, and the runs that they describe.

A file names settings of `python -m tlstm.train` and the values of each. `wandb agent` passes every
point as `key=value`, and so does `tlstm.sweep`. The points of a random search are a function of
the file alone, so that finished runs are recognised.
"""

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tlstm.training.config import Run, compose
from tlstm.training.received import read_yaml
from tlstm.training.settings import CONFIGURATIONS

Value = bool | int | float | str
Number = Annotated[int | float, Field(allow_inf_nan=False)]

MOST_RUNS = 10_000
SWEEPS = CONFIGURATIONS.parent / "sweeps"  # of this repository


class Parameter(BaseModel):
    """One parameter: a value, a list of values, or a range with a distribution.

    Attributes:
        value: for every point.
        values: of which a grid takes each, and a random search any with equal probability.
        min: the smallest value of a range.
        max: the largest value of a range.
        q: the step of `q_uniform`.
        distribution: as W&B names it; without one a range of integers is `int_uniform`, and any
            other `uniform`.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    value: Value | None = None
    values: list[Value] | None = None
    min: Number | None = None
    max: Number | None = None
    q: Annotated[Number, Field(gt=0)] | None = None
    distribution: (
        Literal[
            "constant", "categorical", "uniform", "int_uniform", "log_uniform_values", "q_uniform"
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _check(self) -> "Parameter":
        given = (self.value is not None, bool(self.values), self.is_range)
        if sum(given) != 1:
            raise ValueError("must have either value or values, or min and max")
        if self.is_range:
            self._check_range()
        elif self.distribution not in (None, "constant" if given[0] else "categorical"):
            raise ValueError(f"{self.distribution} needs min and max")
        if self.q is not None and self.distribution != "q_uniform":
            raise ValueError("q is the step of q_uniform alone")
        return self

    def _check_range(self) -> None:
        if self.min is None or self.max is None or self.min > self.max:
            raise ValueError(f"min must be at most max, got {self.min} and {self.max}")
        whole = isinstance(self.min, int) and isinstance(self.max, int)
        self.distribution = self.distribution or ("int_uniform" if whole else "uniform")
        if self.distribution in ("constant", "categorical"):
            raise ValueError(f"{self.distribution} takes no min and max")
        if self.distribution == "int_uniform" and not whole:
            raise ValueError(f"int_uniform takes integers, got {self.min} and {self.max}")
        if self.distribution == "log_uniform_values" and self.min <= 0:
            raise ValueError(f"min of log_uniform_values must be above 0, got {self.min}")

    @property
    def is_range(self) -> bool:
        """True where the parameter has bounds instead of values."""
        return self.min is not None or self.max is not None

    @property
    def choices(self) -> list[Any]:
        """The values of a grid."""
        return self.values or [self.value]

    def draw(self, quantile: float) -> Value:
        """Return the value at a quantile of the distribution, from 0 to below 1."""
        if self.min is None or self.max is None:
            return self.choices[math.floor(quantile * len(self.choices))]
        if self.distribution == "int_uniform":
            return int(self.min) + math.floor(quantile * (self.max - self.min + 1))
        if self.distribution == "log_uniform_values":
            return min(self.min * (self.max / self.min) ** quantile, self.max)
        number = self.min + quantile * (self.max - self.min)
        if self.distribution == "q_uniform":
            step = 1.0 if self.q is None else self.q
            return round(number / step) * step
        return number


class Metric(BaseModel):
    """The metric that W&B shows with the runs of the sweep."""

    name: str
    goal: Literal["maximize", "minimize"]


class SweepFile(BaseModel):
    """A W&B sweep file that describes a grid or a random search."""

    model_config = ConfigDict(extra="forbid")

    program: str
    name: str | None = None
    description: str | None = None
    project: str | None = None
    entity: str | None = None
    method: Literal["grid", "random"]
    run_cap: Annotated[int, Field(gt=0, strict=True)] | None = None
    metric: Metric | None = None
    parameters: dict[str, Parameter]
    command: list[str]

    @model_validator(mode="after")
    def _check_method(self) -> "SweepFile":
        if self.method == "random" and self.run_cap is None:
            raise ValueError("method: random needs run_cap, the number of runs")
        ranges = [key for key, parameter in self.parameters.items() if parameter.is_range]
        if self.method == "grid" and ranges:
            raise ValueError(f"parameters.{ranges[0]}: a grid takes values and no range")
        return self


def read_sweep_file(path: Path) -> SweepFile:
    """Read and check a sweep file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no sweep file, or neither a grid nor a random search; the message names
            the place.
    """
    try:
        return SweepFile.model_validate(read_yaml(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}," if mark else ""
        raise ValueError(f"{path}{place} is not YAML, as sweep files are") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ValueError(f"{path} is no sweep file: {where}: {first['msg']}") from error


def points(sweep: SweepFile, overrides: Sequence[str]) -> list[list[str]]:
    """Return the command line of every point, the first `run_cap` of them where the file has one.

    There are at most MOST_RUNS + 1.

    Args:
        sweep: the file.
        overrides: `key=value` for all points; one whose key is a parameter of the file replaces
            that parameter's values.
    """
    given = {override.partition("=")[0] for override in overrides}
    free = {key: parameter for key, parameter in sweep.parameters.items() if key not in given}
    grid = itertools.product(*(parameter.choices for parameter in free.values()))
    rows = _random_rows(sweep, free) if sweep.method == "random" else grid
    return [
        [*(f"{key}={value}" for key, value in zip(free, row, strict=True)), *overrides]
        for row in itertools.islice(rows, min(sweep.run_cap or MOST_RUNS + 1, MOST_RUNS + 1))
    ]


def _random_rows(sweep: SweepFile, free: Mapping[str, Parameter]) -> Iterator[tuple[Value, ...]]:
    """Draw points without end; a longer search begins with the points of a shorter one."""
    content = json.dumps(
        {key: parameter.model_dump() for key, parameter in sweep.parameters.items()},
        sort_keys=True,
    )
    streams = {key: random.Random(f"{key} {content}") for key in free}
    while True:
        yield tuple(parameter.draw(streams[key].random()) for key, parameter in free.items())


def read_runs(file: Path, overrides: Sequence[str]) -> list[Run]:
    """Return the runs of a sweep file.

    A file of this repository, which has its own name, takes the values of the chosen scale; any
    other file runs its own.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no sweep file, or a point cannot be run; the message names the file.
    """
    sweep = read_sweep_file(file)
    try:
        if is_of_repository(file, sweep):
            sweep = at_scale(sweep, overrides)
        found = points(sweep, overrides)
        if len(found) > MOST_RUNS:
            raise ValueError(f"it has more than {MOST_RUNS:,} runs; run_cap limits them")
        return [compose(point) for point in found]
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def is_of_repository(file: Path, sweep: SweepFile) -> bool:
    """Return True for a file of `sweeps/` with its own name, and False for a changed copy."""
    place = file.resolve()
    if not place.is_relative_to(SWEEPS):
        return False
    return sweep.name == "-".join(place.relative_to(SWEEPS).with_suffix("").parts)


def at_scale(sweep: SweepFile, overrides: Sequence[str]) -> SweepFile:
    """Return a sweep with the values of the scale that is among the overrides.

    Where the experiment or the scale names values of a parameter, they replace several values of
    the file. Tasks become their stand-ins.

    Raises:
        ValueError: the scale or the experiment is unknown.
    """
    (scale,) = [override for override in overrides if override.startswith("scale=")]
    named = sweep.parameters.get("experiment")
    config = compose([scale, *([f"experiment={named.value}"] if named else [])]).config
    of_experiment = config.experiment.get("sweep", {}).get(config.scale.name, {})
    values = {**config.scale.sweep, **of_experiment}
    stand_ins = config.scale.get("stand_ins", {})
    changed = {
        key: Parameter(values=list(values[key]))
        for key, parameter in sweep.parameters.items()
        if key in values and parameter.values
    }
    if task := sweep.parameters.get("task"):
        changed["task"] = Parameter(values=[stand_ins.get(name, name) for name in task.choices])
    return sweep.model_copy(update={"parameters": sweep.parameters | changed})


def with_threads(run: Run, threads: int) -> Run:
    """Return the run with its share of the processor, unless it was given one."""
    if run.config.trainer.threads is not None:
        return run
    return compose([*run.overrides, f"trainer.threads={threads}"])
