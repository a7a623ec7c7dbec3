"""What the paper leaves open: the rule that chooses, the pictures of digits and of the search."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from test_figures import published, results, words
from test_pages import page_of
from tlstm.figures import main
from tlstm.records.schema import CurvePoint, Record
from tlstm.records.store import append
from tlstm.reporting.positions import accuracies, positions_figure
from tlstm.reporting.rule import CANDIDATES, Score, decide, scores
from tlstm.reporting.search import search_figure, searched_settings
from worlds import made_up

__all__ = ["published", "results"]  # fixtures

SEVEN, TEN, GRID, STACK = rows = (
    *(("tlstm_3d_cn", 7), ("tlstm_3d_cn", 10)),
    *(("grid_lstm_tied", 43), ("slstm", 29)),
)
PUBLISHED_SAMPLES = {SEVEN: 115_000, TEN: 54_000, GRID: 150_000, STACK: 900_000}  # Table 2
NEVER = math.inf


def config(candidate: str, task: str, model: str, **training: Any) -> dict[str, Any]:
    normalization = {"normalization": "channel"} if model == "tlstm_3d_cn" else {}
    return {
        "task": {"name": task, "digits": 15, "base": 10, "symbols": 20, "alphabet": 64},
        "model": {"name": model, "core": {"forget_bias": 1.0, **normalization}},
        "initialization": {"name": candidate, "scale": 1.0, **CANDIDATES[candidate]._asdict()},
        "training": {"learning_rate": 0.001, "gradient_clip": 0.0, **training},
    }


def run(
    candidate: str, row: tuple[str, int], reached: float, seed: int = 0, **training: Any
) -> Record:
    """A run that passes its row's accuracy after so many samples, of twice the published ones."""
    end = 2 * PUBLISHED_SAMPLES[row]
    low, high = (0.3, 0.6) if row == STACK else (0.9, 1.0)
    points = [(1000, low), (int(min(reached, end)), low if math.isinf(reached) else high)]
    return made_up(
        *("paper", "memorization", *row, seed),
        experiment="choices",
        samples=end,
        samples_to_threshold=None,
        outcome="budget spent",
        curve=curve(points),
        config=config(candidate, "memorization", row[0], **training),
    )


def curve(points: list[tuple[int, float]]) -> list[CurvePoint]:
    return [
        CurvePoint(samples=samples, accuracy=accuracy, loss=1.0, seconds=number)
        for number, (samples, accuracy) in enumerate(points)
    ]


def addition(candidate: str, accuracy: float) -> Record:
    return made_up(
        *("paper", "addition", "tlstm_3d_cn", 7),
        experiment="choices",
        samples=600_000,
        curve=curve([(4500, 0.1), (297_000, accuracy), (301_500, 0.9)]),
        config=config(candidate, "addition", "tlstm_3d_cn"),
    )


def first_seeds() -> list[Record]:
    """Seed 0 of every candidate; `torch7` has published numbers but for nothing."""
    as_published = {target: float(number) for target, number in PUBLISHED_SAMPLES.items()}
    others = {name: dict.fromkeys(rows, NEVER) for name in ("large_biases", "char_rnn")}
    of = {
        "torch7": as_published,
        "torch7_small_gain": {SEVEN: 115_000, TEN: 54_000},
        "embedding": {SEVEN: 115_000 / 2, TEN: NEVER, GRID: 150_000, STACK: 90_000},
        **others,
    }
    return [run(name, *each) for name, reached in of.items() for each in reached.items()]


def of(found: list[Score], candidate: str) -> Score:
    return next(score for score in found if score.candidate == candidate)


def reached(score: Score, row: tuple[str, int]) -> dict[int, float]:
    return next(runs for target, runs in score.reached.items() if target.network[1:] == row)


def test_scores_are_those_of_a_hand_calculation(published: pd.DataFrame) -> None:
    """Half the samples and none within twice count log10 2 = 0.30103, a tenth counts 1."""
    found = scores(first_seeds(), published)
    assert of(found, "torch7").value == 0
    assert of(found, "torch7_small_gain").value == 0  # stacks have no gain: torch7's runs
    assert of(found, "embedding").value == pytest.approx((0.30103 + 0.30103 + 0 + 1) / 4, abs=1e-5)
    assert of(found, "char_rnn").value == pytest.approx(0.30103, abs=1e-5)
    more = [run("embedding", SEVEN, 115_000, 1), run("embedding", SEVEN, NEVER, 2)]
    changed = of(scores([*first_seeds(), *more], published), "embedding")
    assert reached(changed, SEVEN) == {0: 57_500, 1: 115_000, 2: NEVER}
    assert changed.value == pytest.approx((0.20069 + 0.30103 + 0 + 1) / 4, abs=1e-5)


def test_only_runs_with_the_reproductions_settings_count(published: pd.DataFrame) -> None:
    usual = run("embedding", SEVEN, NEVER, seed=5).model_copy(
        update={"experiment": "fig4", "depth": 4}
    )
    clipped = run("torch7", SEVEN, 60_000, seed=1, gradient_clip=1.0)
    short = run("torch7", SEVEN, NEVER, seed=2).model_copy(update={"samples": 200_000})
    skewed = run("torch7", SEVEN, 60_000, seed=3)
    skewed = skewed.model_copy(
        update={"config": skewed.config | {"sampling": {"name": "skewed", "skew": 0.5}}}
    )
    scaled = run("torch7", SEVEN, 60_000, seed=4)
    initialization: Any = scaled.config["initialization"]
    scaled = scaled.model_copy(
        update={"config": scaled.config | {"initialization": initialization | {"scale": 2.0}}}
    )
    smoke = run("torch7", SEVEN, 60_000, seed=6).model_copy(update={"scale": "smoke"})
    longer = run("torch7", SEVEN, 60_000, seed=7, max_samples=500_000)
    records = [usual, clipped, short, skewed, scaled, smoke, longer]
    assert reached(of(scores(records, published), "torch7"), SEVEN) == {7: 60_000}


def test_the_best_three_need_all_seeds_and_close_ones_are_decided_by_addition(
    published: pd.DataFrame,
) -> None:
    records = first_seeds()
    assert decide(scores(records[1:], published)) == (
        None,
        ["torch7, seed 0: 3D tLSTM+CN, L = 7"],
    )
    names = ("torch7", "torch7_small_gain")
    third = "large_biases"  # the first of two equal ones
    winner, needed = decide(scores(records, published))
    assert winner is None
    assert {each.partition(":")[0] for each in needed} == {
        f"{name}, seed {seed}" for name in (*names, third) for seed in (1, 2)
    }
    for seed in (1, 2):
        records += [run("torch7", target, n, seed) for target, n in PUBLISHED_SAMPLES.items()]
        records += [run("torch7_small_gain", t, PUBLISHED_SAMPLES[t], seed) for t in (SEVEN, TEN)]
        records += [run(third, target, NEVER, seed) for target in rows]
    found = scores(records, published)
    assert decide(found) == (None, [f"{name}: addition" for name in names])
    records += [addition("torch7", 0.22), addition("torch7_small_gain", 0.3)]
    winner, needed = decide(scores(records, published))
    assert winner is not None
    assert needed == []
    assert (winner.candidate, winner.addition) == ("torch7_small_gain", 0.3)


def test_the_page_says_what_the_rule_lacks_or_chooses(results: Any) -> None:
    append(first_seeds(), results)
    page = page_of(results, "choices")
    assert "**Not decided yet.**" in page
    assert "* torch7, seed 1: 3D tLSTM+CN, L = 7" in page
    row = next(line for line in page.splitlines() if line.startswith("| embedding | 57.5K"))
    assert row == "| embedding | 57.5K | \\> 108K | 150K | 90K | 0.401 | — |"


# Digit by digit


def with_positions(seed: int, positions: list[list[float]], **changes: Any) -> Record:
    points = [
        CurvePoint(samples=100 * n, accuracy=0.5, loss=1.0, seconds=n, positions=each)
        for n, each in enumerate(positions, start=1)
    ]
    given = {"experiment": "digits", "curve": points, "samples": 100 * len(points)}
    return made_up("smoke", "addition", "tlstm_3d_cn", 4, seed, **(given | changes))


def test_accuracies_are_those_of_the_last_validation() -> None:
    record = with_positions(0, [[0.1, 0.2], [0.3, 0.4]])
    found = accuracies(record, np.array([0, 100, 199, 200, 900]))
    np.testing.assert_array_equal(found, [[0.1, 0.1, 0.1, 0.3, 0.3], [0.2, 0.2, 0.2, 0.4, 0.4]])


def test_every_run_that_measured_positions_has_a_panel(results: Any) -> None:
    runs = [with_positions(seed, [[0.0, 0.5, 1.0]] * 3) for seed in (0, 1)]
    unmeasured = made_up("smoke", "addition", "slstm", 4)
    figure = positions_figure([*runs, unmeasured])
    images = [panel.images[0].get_array() for panel in figure.axes if panel.images]
    assert len(images) == 2
    for image in images:
        assert image.shape[0] == 3
        np.testing.assert_allclose(image[:, 0], [0, 50, 100])
    assert "Addition of 2-digit integers in base 6" in words(figure)
    with pytest.raises(ValueError, match="no run has measured"):
        positions_figure([unmeasured])
    append(runs, results)
    assert main(["--results", str(results), "digits"]) == 0
    assert (results / "digits" / "smoke-addition.png").exists()


# The random search


def test_a_search_has_a_panel_for_each_setting_in_which_runs_differ(results: Any) -> None:
    def searched(number: int, gain: float, bias: float | None) -> Record:
        record = with_positions(0, [[0.5]], experiment="search", identifier=f"{number:016x}")
        initialization: Any = record.config["initialization"]
        initialization = initialization | {"norm_gain": gain, "bias_range": bias}
        best = {"accuracy": 0.1 * number, "loss": 1.0}
        changes = {"config": record.config | {"initialization": initialization}, "best": best}
        return record.model_copy(update=changes)

    runs = [searched(1, 0.05, 0.1), searched(2, 0.5, None), searched(3, 1.0, 0.2)]
    assert searched_settings(runs) == {
        "initialization.bias_range": [0.1, None, 0.2],
        "initialization.norm_gain": [0.05, 0.5, 1.0],
    }
    bias, gain = [panel for panel in search_figure(runs).axes if panel.lines]
    assert (gain.get_xlabel(), gain.get_xscale()) == ("norm gain", "log")
    np.testing.assert_allclose(gain.lines[0].get_xydata(), [[0.05, 10], [0.5, 20], [1, 30]])
    assert bias.get_xlabel() == "bias range"
    append(runs, results)
    assert main(["--results", str(results), "search"]) == 0
