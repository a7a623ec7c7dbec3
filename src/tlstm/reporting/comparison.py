"""Comparison of one configuration with another: the effect, its interval, the answer.

Pure functions of rows of `tlstm.reporting.rows.run_table`. A larger value is better in every
quantity. Which quantities are compared, and what counts as a difference where there is only one
seed, the paper leaves open [ours].
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from tlstm.records import table as tables
from tlstm.records.measures import original
from tlstm.records.models import MODELS, TASKS

Answer = Literal["agrees", "contradicts", "unclear", "missing"]
Relation = Literal["better", "no different", "no better"]
Numbers = npt.NDArray[np.float64]

CONFIDENCE = 0.95
JOINED: dict[Relation, str] = {"better": "than", "no different": "from", "no better": "than"}
TOLERANCE = 2.0  # margins within which a difference is none
TESTED = ("test", "best")  # moments in the order in which their metrics are asked for
GENERATED = ("addition", "memorization")
# A run may stay on a plateau for hundreds of thousands of samples and then learn at once, so two
# that ended below this accuracy are not compared [ours]
HALF = 0.5
PLATEAU = "neither got half of the answers right: where they ended may be a plateau"
DEPTHS = {name: task.depths for name, task in TASKS.items()}  # of Figures 3 to 5
DEPTHS["permuted_mnist"] = DEPTHS["mnist"]
LABELS = {name: model.label for name, model in MODELS.items()}


class Side(NamedTuple):
    """A configuration at a depth."""

    model: str
    depth: int

    def __str__(self) -> str:
        return f"{LABELS.get(self.model, self.model)}, L = {self.depth}"


class Quantity(NamedTuple):
    """The quantity that runs are compared by.

    Attributes:
        name: what the effect is a difference of.
        of: the value of every run; larger is better.
        margin: how far one seed may be from the mean of many [ours].
        text: a difference in words, the sign of the first side's advantage kept.
    """

    name: str
    of: Callable[[pd.DataFrame], pd.Series]
    margin: float
    text: Callable[[float], str]


class Finding(NamedTuple):
    """One comparison that a claim makes, and what the runs say.

    Attributes:
        compared: which rows, and how the first should be to the second.
        effect: the difference and its interval, in words; empty where something is missing.
        answer: whether it is as claimed.
        basis: how many seeds, or what was not run.
        on_plateau: the answer if both sides ended on a plateau, which is set aside; else None.
    """

    compared: str
    effect: str
    answer: Answer
    basis: str
    on_plateau: Answer | None = None


def _samples_value(runs: pd.DataFrame) -> pd.Series:
    """Return −log2 of the samples to the threshold; one that never passed counts as at its end."""
    samples = runs["samples_to_threshold"].astype(float).fillna(runs["budget"])
    return -samples.clip(lower=1).map(math.log2)


def _measured(runs: pd.DataFrame, metric: str) -> pd.Series:
    """Return a metric on the test samples, else the best on the validation samples."""
    nothing = pd.Series(math.nan, index=runs.index)
    test, best = (runs.get(f"{moment}_{metric}", nothing).astype(float) for moment in TESTED)
    return test.fillna(best)


def quantity(task: str, scale: str, solved: bool) -> Quantity:
    """Return the quantity that runs of a task are compared by.

    Args:
        task: the task's label.
        scale: margins of the accuracy are wider where the test set is not the paper's.
        solved: whether any of the compared runs passed the threshold.
    """
    if original(task) == "wikipedia":
        return Quantity(
            "bits per character",
            lambda runs: -_measured(runs, "bits_per_character"),
            0.01,
            lambda difference: f"{-difference:+.3f}",
        )
    if original(task) in GENERATED and solved:
        return Quantity(
            "the samples to the threshold",
            _samples_value,
            1.0,
            lambda difference: f"{2**-difference:.2g} ×",  # the first's to the second's
        )
    full = scale == "paper" and original(task) not in GENERATED
    return Quantity(
        "points of accuracy",
        lambda runs: 100 * _measured(runs, "accuracy"),
        0.3 if full else 5.0,
        lambda difference: f"{difference:+.2f}",
    )


def interval(first: Numbers, second: Numbers, margin: float) -> tuple[float, float, bool]:
    """Return the interval of the difference of means, first minus second.

    Args:
        first: values over seeds, at least one.
        second: the same.
        margin: half the width where either has one seed, or where no seed differs from another.

    Returns:
        Lower end, upper end, and whether it is Welch's 95% interval over seeds.
    """
    difference = float(first.mean() - second.mean())
    half = _welch(first, second) if min(len(first), len(second)) > 1 else 0.0
    return difference - (half or margin), difference + (half or margin), half > 0


def _welch(first: Numbers, second: Numbers) -> float:
    """Return half the width of Welch's interval; 0 where no seed differs from another.

    scipy.stats.ttest_ind warns where a side has no spread, which is common here.
    """
    one, other = (float(values.var(ddof=1)) / len(values) for values in (first, second))
    if one + other == 0:
        return 0.0
    share = one / (one + other)
    freedom = 1 / (share**2 / (len(first) - 1) + (1 - share) ** 2 / (len(second) - 1))
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(one + other)


def answer(relation: Relation, low: float, high: float, margin: float) -> Answer:
    """Tell whether an interval of the first side's advantage is as claimed."""
    tolerance = TOLERANCE * margin
    differs = low > tolerance or high < -tolerance
    agrees, contradicts = {
        "better": (low > 0, high < 0),
        "no different": (-tolerance <= low and high <= tolerance, differs),
        "no better": (low <= 0 and high <= tolerance, low > 0),
    }[relation]
    return "agrees" if agrees else "contradicts" if contradicts else "unclear"


class Runs:
    """The runs of one scale and one task, to be asked for comparisons.

    Args:
        scale: "smoke", "short" or "paper".
        task: the label of the data that ran.
        table: their rows of `run_table`; there may be none.
        times: their runtimes, rows of `tlstm.reporting.rows.TIMES`.
    """

    def __init__(self, scale: str, task: str, table: pd.DataFrame, times: pd.DataFrame) -> None:
        self.scale, self.task, self.original = scale, task, original(task)
        self.table = table.assign(budget=table["samples"].max())
        self.times = times

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Return L in rising order: the depths that ran, but the paper's at its scale."""
        if self.original in DEPTHS and (self.scale == "paper" or self.table.empty):
            return DEPTHS[self.original]
        return tuple(sorted(int(depth) for depth in set(self.table["depth"])))

    @property
    def deep(self) -> tuple[int, ...]:
        """Return the depths above 1."""
        return tuple(depth for depth in self.depths if depth > 1)

    @property
    def at_papers_scale(self) -> bool:
        """Return whether the runs may decide a claim: the paper's sizes and the paper's data."""
        return self.scale == "paper" and self.task == self.original

    @cached_property
    def sides(self) -> dict[Side, pd.DataFrame]:
        """Return the runs of every configuration and depth that differ in nothing but their seed.

        Where several settings or widths ran, those with the most seeds, of equal ones the first.
        """
        found: dict[Side, pd.DataFrame] = {}
        for runs in tables.lines(self.table):
            side = Side(runs["model"].iloc[0], int(runs["depth"].iloc[0]))
            if len(runs) > len(found.get(side, ())):
                found[side] = runs
        return found

    def compare(self, first: Side, relation: Relation, second: Side) -> Finding:
        """Compare the first side with the second, as the relation claims."""
        compared = f"{first}: {relation} {JOINED[relation]} {second}"
        absent = [str(side) for side in (first, second) if side not in self.sides]
        if absent:
            return Finding(compared, "", "missing", f"not run: {'; '.join(absent)}")
        sides = self.sides[first], self.sides[second]
        if any(runs["sees_ahead"].any() for runs in sides):
            return Finding(compared, "", "unclear", "a side predicts what it has seen")
        solved = any(runs["samples_to_threshold"].notna().any() for runs in sides)
        measure = quantity(self.task, self.scale, solved)
        finding = _finding(compared, relation, *sides, measure)
        low = all((runs["best_accuracy"] < HALF).all() for runs in sides)
        if self.original in GENERATED and low:
            return finding._replace(answer="unclear", basis=PLATEAU, on_plateau=finding.answer)
        return finding


def _finding(
    compared: str, relation: Relation, first: pd.DataFrame, second: pd.DataFrame, measure: Quantity
) -> Finding:
    values = [measure.of(runs).dropna().to_numpy(dtype=float) for runs in (first, second)]
    if not all(map(len, values)):
        return Finding(compared, "", "unclear", "a side diverged")
    low, high, over_seeds = interval(values[0], values[1], measure.margin)
    difference = float(values[0].mean() - values[1].mean())
    ends = sorted((measure.text(low), measure.text(high)), key=lambda end: float(end.split()[0]))
    effect = f"{measure.text(difference)} {measure.name} ({ends[0]} to {ends[1]})"
    seeds = f"{len(values[0])} and {len(values[1])} seeds: "
    basis = seeds + ("95% interval" if over_seeds else "assumed margin")
    return Finding(compared, effect, answer(relation, low, high, measure.margin), basis)
