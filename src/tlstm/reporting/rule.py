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
DECIDES = ("tlstm_3d_cn", 7, 298_000)  # on addition: model, L and training samples [paper]
BUDGET = "training.max_samples"  # a longer run is the same up to there
OF_MODEL = ("model.channels", "model.core.forget_bias")  # which no candidate changes


class Target(NamedTuple):
    """A row of Table 2 that counts: its name there, our model and the L that its text gives."""

    published: str
    model: str
    depth: int

    @property
    def title(self) -> str:
        """Head of its column."""
        return f"{self.published}, L = {self.depth}"


class Beginning(NamedTuple):
    """The values of a candidate in `conf/initialization`; None is as the layer draws."""

    hidden_range: float | None
    input_range: float | str | None
    bias_range: float | None
    norm_gain: float = 1.0


TARGETS = (
    Target("3D tLSTM+CN", "tlstm_3d_cn", 7),
    Target("3D tLSTM+CN", "tlstm_3d_cn", 10),
    Target("Grid LSTM", "grid_lstm_tied", 43),
    Target("Stacked LSTM", "slstm", 29),
)
CANDIDATES = {
    "torch7": Beginning(None, None, None),
    "torch7_small_gain": Beginning(None, None, None, 0.1),
    "embedding": Beginning(0.08, "normal", 0),
    "large_biases": Beginning(0.102, 0.30, 0.287),
    "char_rnn": Beginning(0.08, 0.08, 0.08),
}


class Score(NamedTuple):
    """A candidate's runs.

    Attributes:
        candidate: its name in `conf/initialization`.
        reached: for each target the training samples until its accuracy by seed, infinite where a
            run has not reached it within `FACTOR` times the published number.
        distances: of each target |log10(ours / published)|, the mean over seeds; None without runs.
        addition: mean accuracy over seeds of what decides between close ones; None without runs.
    """

    candidate: str
    reached: dict[Target, dict[int, float]]
    distances: list[float | None]
    addition: float | None

    @property
    def value(self) -> float | None:
        """The score; None where a row has no run."""
        known = [distance for distance in self.distances if distance is not None]
        return mean(known) if len(known) == len(self.distances) else None


def scores(records: Sequence[Record], published: pd.DataFrame) -> list[Score]:
    """Return the scores of all candidates.

    Args:
        records: of any experiments; those at the paper's scale whose other settings are the
            reproduction's count.
        published: the rows of published.csv.
    """
    runs = [record for record in latest(records) if record.scale == "paper"]
    found = []
    for name, beginning in CANDIDATES.items():
        own = [record for record in _usual(runs) if _begins(record, beginning)]
        reached, distances = {}, []
        for target in TARGETS:
            samples, accuracy = _published(target, published)
            of_target = [r for r in own if (r.task, *_network(r)) == ("memorization", *target[1:])]
            reached[target] = _by_seed(of_target, accuracy, FACTOR * samples)
            each = [_distance(ours, samples) for ours in reached[target].values()]
            distances.append(mean(each) if each else None)
        found.append(Score(name, reached, distances, _addition(own)))
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


def _network(run: Record) -> tuple[str, int]:
    return run.model, run.depth


def _published(target: Target, published: pd.DataFrame) -> tuple[float, float]:
    """Return the published samples and accuracy of a target, a fraction."""
    rows = published[(published["task"] == "memorization") & (published["table"] == "table2")]
    rows = rows[rows["model"] == target.published]
    (row,) = rows[rows["depth"].isin(["", str(target.depth)])].to_dict("records")
    return tables.number(row["samples"]), tables.number(row["value"]) / 100


def _by_seed(runs: Sequence[Record], accuracy: float, limit: float) -> dict[int, float]:
    """Return the samples until an accuracy by seed; runs that end before the limit tell nothing."""
    found: dict[int, float] = {}
    for run in sorted(runs, key=lambda run: run.finished):
        passed = [p.samples for p in run.curve if p.accuracy > accuracy and p.samples <= limit]
        if passed or run.samples >= limit or run.outcome in ("solved", "diverged"):
            found[run.seed] = passed[0] if passed else math.inf
    return dict(sorted(found.items()))


def _distance(ours: float, published: float) -> float:
    return math.log10(FACTOR) if math.isinf(ours) else abs(math.log10(ours / published))


def _addition(runs: Sequence[Record]) -> float | None:
    """Return the mean accuracy of what decides between close scores, over seeds."""
    *network, samples = DECIDES
    found = {}
    for run in sorted(runs, key=lambda run: run.finished):
        if (run.task, *_network(run)) == ("addition", *network) and run.curve:
            before = [point.accuracy for point in run.curve if point.samples <= samples]
            every = run.curve[0].samples
            if before and (run.samples > samples - every or run.outcome == "solved"):
                found[run.seed] = before[-1]
    return mean(found.values()) if found else None


def missing(found: Sequence[Score]) -> list[str]:
    """Return the runs that the rule still needs: "char_rnn, seed 0: Grid LSTM, L = 43"."""
    needed = [(score, seed) for score, seeds in _needed(found) for seed in seeds]
    lacking = {
        f"{score.candidate}, seed {seed}": [
            target.title for target, runs in score.reached.items() if seed not in runs
        ]
        for score, seed in needed
    }
    return [f"{name}: {'; '.join(titles)}" for name, titles in lacking.items() if titles]


def _needed(found: Sequence[Score]) -> list[tuple[Score, Sequence[int]]]:
    """Return the seeds that each candidate needs: the first, and all seeds of the best ones."""
    first = [(score, SEEDS[:1]) for score in found]
    if any(SEEDS[0] not in runs for score in found for runs in score.reached.values()):
        return list(first)
    best = sorted(found, key=_value)[:BEST]
    return [(score, SEEDS if score in best else SEEDS[:1]) for score in found]


def _value(score: Score) -> float:
    return math.inf if score.value is None else score.value


def chosen(found: Sequence[Score]) -> Score | None:
    """Return the candidate that the rule chooses; None while runs are missing."""
    lowest = min(found, key=_value)
    close = [score for score in found if _value(score) < _value(lowest) + CLOSE]
    undecided = len(close) > 1 and any(score.addition is None for score in close)
    if missing(found) or undecided:
        return None
    return max(close, key=lambda score: score.addition or 0.0)


def section(records: Sequence[Record], published: pd.DataFrame) -> str:
    """Return the section of a page, in Markdown: the rule, its table and its choice."""
    found = scores(records, published)
    close = [score for score in found if _value(score) < min(map(_value, found)) + CLOSE]
    lacking = missing(found)
    if not lacking and len(close) > 1:
        lacking = [f"{score.candidate}: addition" for score in close if score.addition is None]
    return rendered(
        "rule.md.jinja",
        rows=[_row(score, published) for score in sorted(found, key=_value)],
        close=CLOSE,
        missing=lacking,
        chosen=chosen(found),
    )


def _row(score: Score, published: pd.DataFrame) -> Row:
    limits = {target: FACTOR * _published(target, published)[0] for target in TARGETS}
    columns = {
        target.title: _samples(runs, limits[target]) for target, runs in score.reached.items()
    }
    value, addition = score.value, score.addition
    return {
        "initialization": score.candidate.replace("_", " "),
        **columns,
        "score": UNKNOWN if value is None else f"{value:.3f}",
        "addition (%)": UNKNOWN if addition is None else f"{100 * addition:.1f}",
    }


def _samples(runs: Mapping[int, float], limit: float) -> str:
    """Return the samples of every seed: "27K, 41K, > 230K"."""
    shown = [f"> {people(limit)}" if math.isinf(n) else people(n) for n in runs.values()]
    return ", ".join(shown) or UNKNOWN
