"""Sweep files: W&B's own format, read without W&B.

A file names parameters of `python -m tlstm.train` and the values of each; a grid of them is the
list of runs. `wandb agent` passes every point as `key=value`, and so does `tlstm.sweep`.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

Value = bool | int | float | str


class Parameter(BaseModel):
    """One parameter: a value, or the values of the grid."""

    model_config = ConfigDict(extra="forbid", strict=True)

    value: Value | None = None
    values: list[Value] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "Parameter":
        if (self.value is None) == (not self.values):
            raise ValueError("must have either value or values")
        return self


class Metric(BaseModel):
    """What W&B shows beside the runs of the sweep."""

    name: str
    goal: Literal["maximize", "minimize"]


class SweepFile(BaseModel):
    """A W&B sweep file, as far as a grid needs it; W&B reads the rest."""

    model_config = ConfigDict(extra="forbid")

    program: str
    name: str | None = None
    description: str | None = None
    project: str | None = None
    entity: str | None = None
    method: Literal["grid"]
    metric: Metric | None = None
    parameters: dict[str, Parameter]
    command: list[str]


def read_sweep_file(path: Path) -> SweepFile:
    """Read and check a sweep file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no sweep file, or no grid; the message says what is wrong and where.
    """
    try:
        return SweepFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ValueError(f"{path} is no sweep file: {where}: {first['msg']}") from error


def points(
    sweep: SweepFile, overrides: Sequence[str], values_at_scale: Mapping[str, Sequence[Any]]
) -> list[list[str]]:
    """The command line of every point of the grid.

    Args:
        sweep: the file.
        overrides: `key=value` for all points; one whose key is a parameter of the file takes the
            place of that parameter's values.
        values_at_scale: what the values of a parameter become at the chosen scale, where the
            file has several.
    """
    given = {override.partition("=")[0] for override in overrides}
    choices = [
        [f"{key}={value}" for value in _values(key, parameter, values_at_scale)]
        for key, parameter in sweep.parameters.items()
        if key not in given
    ]
    return [[*point, *overrides] for point in itertools.product(*choices)]


def _values(
    key: str, parameter: Parameter, values_at_scale: Mapping[str, Sequence[Any]]
) -> Sequence[Any]:
    if parameter.values is None:
        return [parameter.value]
    return values_at_scale.get(key, parameter.values)
