"""The runs that a sweep file asks for, at the scale that was chosen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlstm.sweeping.file import SweepFile, points, read_sweep_file
from tlstm.training.config import Run, compose


def read_runs(file: Path, overrides: Sequence[str]) -> list[Run]:
    """The runs of a sweep file's grid.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no sweep file, or a point cannot be run; the message names the file.
    """
    sweep = read_sweep_file(file)
    try:
        values = values_at_scale(sweep, overrides)
        return [compose(point) for point in points(sweep, overrides, values)]
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def values_at_scale(sweep: SweepFile, overrides: Sequence[str]) -> dict[str, Sequence[Any]]:
    """What the values of a sweep become at the chosen scale: the experiment's word, or the scale's.

    Raises:
        ValueError: the scale or the experiment is unknown.
    """
    (scale,) = [override for override in overrides if override.startswith("scale=")]
    named = sweep.parameters.get("experiment")
    experiment = [f"experiment={named.value}"] if named else []
    config = compose([scale, *experiment]).config
    of_experiment = config.experiment.get("sweep", {}).get(config.scale.name, {})
    return {**config.scale.sweep, **of_experiment}


def with_threads(run: Run, threads: int) -> Run:
    """The same run with its share of the processor, unless it was given one."""
    if run.config.trainer.threads is not None:
        return run
    return compose([*run.overrides, f"trainer.threads={threads}"])
