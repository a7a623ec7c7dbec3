"""The rule that chooses how addition and memorization begin, declared before the runs.

The score of a candidate is the mean of |log10(ours / published)| over four rows of Table 2's
memorization, ours being the training samples until the row's accuracy. A run that has not reached
it within twice the published number counts as log10 2. Where scores differ by less than `CLOSE`,
the accuracy of 3D tLSTM+CN, L = 7, on addition decides.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import NamedTuple

import pandas as pd

from tlstm.records import table as tables
from tlstm.records.schema import Record
from tlstm.records.store import latest
from tlstm.records.table import UNKNOWN, people
from tlstm.reporting.pages import rendered
from tlstm.reporting.rows import Row

FACTOR = 2  # times the published samples, within which a run must reach a row's accuracy
CLOSE = 0.05  # between scores
SEEDS, BEST = (0, 1, 2), 3  # the first seed of every candidate, all of so many best ones
ADDITION = ("addition", "tlstm_3d_cn", 7)  # task, model and L that decide between close scores
ADDITION_SAMPLES = 298_000  # after so many [paper]
ROWS = (  # L of Grid LSTM and of the stack is that of Grid LSTM's text
    ("3D tLSTM+CN", "tlstm_3d_cn", 7),
    ("3D tLSTM+CN", "tlstm_3d_cn", 10),
    ("Grid LSTM", "grid_lstm_tied", 43),
    ("Stacked LSTM", "slstm", 29),
)
BUDGET = "training.max_samples"  # a longer run is the same up to there
OF_MODEL = ("model.channels", "model.core.forget_bias")  # which no candidate changes


class Beginning(NamedTuple):
    """The values of a candidate in `conf/initialization`; None is as the layer draws."""

    hidden_range: float | None
    input_range: float | str | None
    bias_range: float | None
    norm_gain: float = 1.0


CANDIDATES = {
    "torch7": Beginning(None, None, None),
    "torch7_small_gain": Beginning(None, None, None, 0.1),
    "embedding": Beginning(0.08, "normal", 0),
    "large_biases": Beginning(0.102, 0.30, 0.287),
    "char_rnn": Beginning(0.08, 0.08, 0.08),
}


class Target(NamedTuple):
    """A row of Table 2: its column, the task, model and L of our runs, the published numbers."""

    title: str
    network: tuple[str, str, int]
    samples: float
    accuracy: float


class Score(NamedTuple):
    """A candidate's runs.

    Attributes:
        candidate: its name in `conf/initialization`.
        reached: for each target the training samples until its accuracy by seed, infinite where a
            run has not reached it within `FACTOR` times the published number.
        addition: mean accuracy over seeds of what decides between close ones; None without runs.
    """

    candidate: str
    reached: dict[Target, dict[int, float]]
    addition: float | None

    @property
    def value(self) -> float:
        """The score, NaN where a row has no run."""
        rows = [[_distance(n, t) for n in runs.values()] for t, runs in self.reached.items()]
        return mean(mean(row) if row else math.nan for row in rows)


def _distance(ours: float, target: Target) -> float:
    return math.log10(FACTOR) if math.isinf(ours) else abs(math.log10(ours / target.samples))


def scores(records: Sequence[Record], published: pd.DataFrame) -> list[Score]:
    """Return the scores of all candidates.

    Args:
        records: of any experiments; those at the paper's scale whose other settings are the
            reproduction's count.
        published: the rows of published.csv.
    """
    runs = _usual([record for record in latest(records) if record.scale == "paper"])
    runs.sort(key=lambda run: run.finished)
    rows = targets(published)
    found = []
    for name, beginning in CANDIDATES.items():
        own = [run for run in runs if _begins(run, beginning)]
        reached = {target: _by_seed(own, target) for target in rows}
        found.append(Score(name, reached, _addition(own)))
    return found


def targets(published: pd.DataFrame) -> list[Target]:
    """Return the rows of the rule with their published samples and accuracy."""
    table = published[(published["table"] == "table2") & (published["task"] == "memorization")]
    found = []
    for name, model, depth in ROWS:
        same = table[(table["model"] == name) & table["depth"].isin(["", str(depth)])]
        samples, value = (tables.number(same[column].item()) for column in ("samples", "value"))
        network = "memorization", model, depth
        found.append(Target(f"{name}, L = {depth}", network, samples, value / 100))
    return found


def _usual(runs: Sequence[Record]) -> list[Record]:
    """Return the runs whose settings, but for the initialization, are the reproduction's."""
    counts: dict[tuple[str, str], Counter[object]] = {}
    for run in runs:
        for name, value in _compared(run).items() if run.experiment not in tables.VARIED else ():
            counts.setdefault((run.task, name), Counter())[value] += 1
    usual = {key: values.most_common(1)[0][0] for key, values in counts.items()}
    return [
        run
        for run in runs
        if not any(name.startswith("sampling.") for name in _compared(run))
        and all(usual.get((run.task, name), v) == v for name, v in _compared(run).items())
    ]


def _compared(run: Record) -> dict[str, object]:
    return {
        name: value
        for name, value in tables.settings(run).items()
        if name in OF_MODEL
        or (not name.startswith(("model.", "initialization")) and name != BUDGET)
    }


def _begins(run: Record, beginning: Beginning) -> bool:
    """Return True for a candidate's run; the gain is nothing to a model without normalization."""
    settings = tables.settings(run)
    begun = [settings.get(f"initialization.{name}") for name in Beginning._fields]
    if settings.get("model.core.normalization") is None:
        begun[-1] = beginning.norm_gain
    return begun == list(beginning) and settings.get("initialization.scale", 1) == 1


def _network(run: Record) -> tuple[str, str, int]:
    return run.task, run.model, run.depth


def _by_seed(runs: Sequence[Record], target: Target) -> dict[int, float]:
    """Return the samples to a target by seed; a run that ends too early tells nothing."""
    found: dict[int, float] = {}
    limit = FACTOR * target.samples
    for run in runs:
        passed = [point.samples for point in run.curve if point.accuracy > target.accuracy]
        if _network(run) != target.network:
            continue
        if passed and passed[0] <= limit:
            found[run.seed] = passed[0]
        elif run.samples >= limit or run.outcome == "diverged":
            found[run.seed] = math.inf
    return dict(sorted(found.items()))


def _addition(runs: Sequence[Record]) -> float | None:
    """Return the mean accuracy of what decides between close scores, over seeds."""
    found = {}
    for run in runs:
        before = [point.accuracy for point in run.curve if point.samples <= ADDITION_SAMPLES]
        whole = run.samples >= ADDITION_SAMPLES or run.outcome == "solved"
        if _network(run) == ADDITION and before and whole:
            found[run.seed] = before[-1]
    return mean(found.values()) if found else None


def decide(found: Sequence[Score]) -> tuple[Score | None, list[str]]:
    """Return the candidate that the rule chooses, or None and the runs that it still needs."""
    lacking = _lacking(found, SEEDS[:1])
    if lacking:
        return None, lacking
    ranked = sorted(found, key=lambda score: score.value)
    lacking = _lacking(ranked[:BEST], SEEDS)
    close = [score for score in ranked if score.value < ranked[0].value + CLOSE]
    if not lacking and len(close) > 1:
        lacking = [f"{score.candidate}: addition" for score in close if score.addition is None]
    return None if lacking else max(close, key=lambda score: score.addition or 0.0), lacking


def _lacking(found: Sequence[Score], seeds: Sequence[int]) -> list[str]:
    """Return the runs that are not there: "char_rnn, seed 0: Grid LSTM, L = 43"."""
    absent = {
        f"{score.candidate}, seed {seed}": [
            target.title for target, runs in score.reached.items() if seed not in runs
        ]
        for score in found
        for seed in seeds
    }
    return [f"{name}: {'; '.join(titles)}" for name, titles in absent.items() if titles]


def section(records: Sequence[Record], published: pd.DataFrame) -> str:
    """Return the section of a page, in Markdown: the rule, its table and its choice."""
    found = scores(records, published)
    chosen, lacking = decide(found)
    ranked = sorted(found, key=lambda score: (math.isnan(score.value), score.value))
    return rendered(
        "rule.md.jinja",
        rows=map(_row, ranked),
        close=CLOSE,
        missing=lacking,
        chosen=chosen,
    )


def _row(score: Score) -> Row:
    return {
        "initialization": score.candidate.replace("_", " "),
        **{target.title: _samples(runs, target) for target, runs in score.reached.items()},
        "score": UNKNOWN if math.isnan(score.value) else f"{score.value:.3f}",
        "addition (%)": UNKNOWN if score.addition is None else f"{100 * score.addition:.1f}",
    }


def _samples(runs: Mapping[int, float], target: Target) -> str:
    """Return the samples of every seed: "27K, 41K, > 230K"."""
    never = f"> {people(FACTOR * target.samples)}"
    return ", ".join(never if math.isinf(n) else people(n) for n in runs.values()) or UNKNOWN
