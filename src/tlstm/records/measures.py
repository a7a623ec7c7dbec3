"""The measure of each task: the accuracy of its answers, or bits per character.

Read from the frame of records (`tlstm.tables.run_table`); imports neither torch nor wandb.
"""

import math
from typing import NamedTuple

import pandas as pd

# Data that stand in for a task's own, or are a part of them; a result on them says so
STANDS_IN_FOR = {
    "digits": "mnist",
    "permuted_digits": "permuted_mnist",
    "wikipedia_sample": "wikipedia",
    "python_topics": "wikipedia",
    "text_file": "wikipedia",
}


class Measure(NamedTuple):
    """A number for how good a run is.

    Attributes:
        name: in words, "accuracy".
        unit: in brackets behind it, "%"; empty where the name says it.
        metric: of a record, from which it is computed.
        factor: the metric times this is the measure.
        digits: behind the decimal point in a table.
        higher_is_better: or else lower.
    """

    name: str
    unit: str
    metric: str
    factor: float
    digits: int
    higher_is_better: bool

    @property
    def title(self) -> str:
        """Head of a column or an axis: "accuracy (%)"."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def of(self, table: pd.DataFrame, moment: str) -> pd.Series:
        """Return the measure of every run at a moment: "best", "last" or "test"."""
        missing = pd.Series(math.nan, table.index)  # as where every run diverged
        return self.factor * table.get(f"{moment}_{self.metric}", missing).astype(float)


ACCURACY = Measure("accuracy", "%", "accuracy", 100, 1, True)
BITS_PER_CHARACTER = Measure("bits per character", "", "loss", 1 / math.log(2), 3, False)


def measure_of(task: str) -> Measure:
    """Return the measure of a task or of its stand-in."""
    return BITS_PER_CHARACTER if original(task) == "wikipedia" else ACCURACY


def original(task: str) -> str:
    """Return the task that a stand-in stands for, or the task itself."""
    return STANDS_IN_FOR.get(task, task)
