"""The numbers behind Figure 6: their schema, and how they are written and read.

`results/fig6/<scale>-<task>.json` holds those of one run; a better run's replace them.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tlstm.records.schema import LARGEST, Count, Frozen, Record, parse
from tlstm.utils import printable, read_regular, replace_file

EXPERIMENT = "fig6"


class MemoryCells(Frozen):
    """The memory cell of one run's best network over one example.

    Attributes:
        format: version of this schema.
        record: of the run, without its curve.
        commit: of the code that computed the cells, None outside of a repository.
        modified: whether that code had changes that no commit holds.
        sample: the example's place among the test samples, from 0.
        inputs: what was read, T symbols as people write them, or numbers from 0 to 1.
        targets: the right answer at each of the T inputs, None where none is asked for.
        outputs: the network's answers at the same places.
        cells: P rows of T + L − 1 numbers: mean over the channels of C_t at the locations
            (p,..,p), p from the input's corner to the output's.
    """

    format: Literal[1] = 1
    record: Record
    commit: str | None
    modified: bool
    sample: Count
    inputs: Annotated[list[str] | list[float], Field(min_length=1)]
    targets: list[str | None]
    outputs: list[str | None]
    cells: Annotated[list[list[float]], Field(min_length=1)]

    @property
    def name(self) -> str:
        """Return the name of the file and of the picture, without a suffix."""
        return f"{self.record.scale}-{self.record.task}"

    @property
    def delay(self) -> int:
        """Return L − 1, the timesteps from an input to its output."""
        return self.record.depth - 1

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "MemoryCells":
        timesteps = len(self.inputs)
        if not timesteps == len(self.targets) == len(self.outputs):
            raise ValueError("inputs, targets and outputs must be of the same length")
        if {len(row) for row in self.cells} != {timesteps + self.delay}:
            raise ValueError(f"cells must be rows of {timesteps + self.delay} timesteps")
        return self


def write(cells: MemoryCells, results_dir: Path) -> Path:
    """Write the cells of a run in the place of those of its scale and task; return the file.

    Raises:
        OSError: it cannot be written.
    """
    path = results_dir / EXPERIMENT / f"{cells.name}.json"
    replace_file(path, (cells.model_dump_json() + "\n").encode())
    return path


def load(results_dir: Path) -> list[MemoryCells]:
    """Return everything that is stored, by the files' names; [] if nothing is.

    Raises:
        OSError: a file cannot be read.
        ValueError: one is not valid; the message names it.
    """
    return [
        parse(MemoryCells, read_regular(path, LARGEST), printable(path), "picture of memory cells")
        for path in sorted((results_dir / EXPERIMENT).glob("*.json"))
    ]
