"""Figures 3 and 5, the ablation and Tables 1 to 3: what they draw, and what their pages say."""

import csv
import math
import random
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from test_bench import everything, on_processor
from test_figures import (
    curves_of,
    published,
    results,
    shown_rows,
    words,
)
from tlstm.figures import draw_front, main
from tlstm.records import table as tables
from tlstm.records.measures import BITS_PER_CHARACTER, measure_of
from tlstm.records.schema import Record
from tlstm.records.store import append
from tlstm.reporting import rows, runtime_pictures
from tlstm.reporting.learning_curves import learning_curves
from tlstm.reporting.pages import Experiment, code, experiment_page, verdict
from tlstm.reporting.runtime import machines
from tlstm.reporting.settings import settings_figure
from tlstm.reporting.sweeps import ablation_figure, sweep_figure
from worlds import PUBLISHED, made_up, points

__all__ = ["published", "results"]  # fixtures

TABLES = {
    "table1": {"wikipedia": "Wikipedia"},
    "table2": {"addition": "Addition", "memorization": "Memorization"},
    "table3": {"mnist": "Sequential MNIST", "permuted_mnist": "Permuted MNIST"},
}


def run(
    task: str, model: str, depth: int, seed: int = 0, scale: str = "smoke", **changes
) -> Record:
    """A made-up run of a task that no run solves."""
    unsolvable = {"threshold": 1.0, "samples_to_threshold": None, "outcome": "budget spent"}
    config = {"task": {"name": task}, "training": {"samples_per_epoch": 10}}
    test = {"test": changes["best"]} if "best" in changes else {}
    values = {"experiment": "fig4", "channels": 24, "config": config, **unsolvable, **test}
    return made_up(scale, task, model, depth, seed, **(values | changes))


def page_of(results: Path, experiment: str) -> str:
    assert main([experiment, "--results", str(results)]) == 0
    return (results / experiment / "README.md").read_text(encoding="utf-8")


# What a task is measured by


def test_bits_per_character_are_the_loss_in_bits():
    """A loss of ln 205 nats is a guess among 205 characters: log₂ 205 = 7.679 bits."""
    table = rows.run_table(
        [run("wikipedia", "slstm", 1, best={"accuracy": 0.1, "loss": math.log(205)})]
    )
    (bits,) = BITS_PER_CHARACTER.of(table, "best")
    assert bits == pytest.approx(7.6795, abs=1e-4)
    ((_, row),) = rows.measured(table)
    assert row["test bits per character"] == "7.679"


# Pictures


def test_figure_3_is_bits_per_character_and_runtime_against_depth():
    losses = {
        ("slstm", 1): 1.5,
        ("slstm", 4): 1.4,
        ("tlstm_3d_cn", 1): 1.6,
        ("tlstm_3d_cn", 4): 1.1,
    }
    runs = [
        run("python_topics", *key, best={"accuracy": 0.5, "loss": loss})
        for key, loss in losses.items()
    ]
    figure = sweep_figure(runs, "depth")
    bits, runtime, _ = figure.axes
    assert (bits.get_ylabel(), runtime.get_ylabel()) == (
        "bits per character",
        "µs per timestep of a batch",
    )
    drawn = [line[0].get_ydata().tolist() for line in bits.containers]
    expected = [[1.5, 1.4], [1.6, 1.1]]
    np.testing.assert_allclose(drawn, np.array(expected) / math.log(2))
    assert [line[0].get_xdata().tolist() for line in bits.containers] == [[1, 4]] * 2
    said = words(figure).replace("\n", " ")
    assert "SMOKE SCALE" in said
    assert "OTHER DATA: python_topics, not the paper's wikipedia" in said


def normalized(normalization: str, depth: int, loss: float) -> Record:
    """A run on Wikipedia's stand-in with this normalization."""
    config = {"model": {"core": {"normalization": normalization}}}
    return run("python_topics", f"tlstm_3d_{normalization}", depth, config=config,
               best={"accuracy": 0.5, "loss": loss})  # fmt: skip


def times(*found: tuple[str, int, int, str, float]) -> pd.DataFrame:
    """What a benchmark has measured of memorization at the paper's sizes."""
    measured = [("paper", "memorization", *row[:3], 1, *row[3:], True) for row in found]
    return pd.DataFrame(measured, columns=rows.TIMES)


def test_the_benchmarks_runtimes_take_the_place_of_those_on_a_shared_device(published, results):
    device = "NVIDIA H200"
    runs = [
        made_up("paper", "memorization", model, depth, channels=100)
        for model in ("tlstm_2d", "slstm")
        for depth in (1, 4)
    ]
    measured = times(
        ("tlstm_2d", 1, 100, device, 5.0),
        ("tlstm_2d", 4, 100, device, 6.0),
        ("slstm", 1, 200, device, 7.0),  # of another width
        ("slstm", 4, 100, "AMD EPYC", 8.0),  # and on another device
    )
    *_, runtime, _ = learning_curves(runs, published, measured).axes
    assert runtime.get_title() == "runtime (benchmark)"
    assert [line[0].get_ydata().tolist() for line in runtime.containers] == [[5.0, 6.0]]
    table = rows.run_table(runs, times=measured)
    assert table["benchmark"].tolist() == [False, False, True, True]  # in the paper's order
    own = [1000 * run.milliseconds_per_timestep for run in runs[2:]]
    assert table["microseconds"].tolist() == pytest.approx([*own, 5.0, 6.0])
    *_, runtime, _ = learning_curves(runs, published).axes
    assert runtime.get_title() == "runtime"
    assert len(runtime.containers) == 2


def with_settings(seed: int, solved: int | None, samples: int, best: float, **training) -> Record:
    """A run of Figure 4's best model with settings of the training."""
    learnt = {"learning_rate": 0.001, "loss": "answer", "gradient_clip": 0.0, **training}
    return made_up(
        "paper",
        "memorization",
        "tlstm_3d_cn",
        10,
        seed,
        config={"task": {"symbols": 20, "alphabet": 64}, "training": learnt},
        samples=samples,
        samples_to_threshold=solved,
        outcome="solved" if solved else "budget spent",
        best={"accuracy": best, "loss": 1.0},
    )


def test_settings_are_rows_by_the_samples_that_they_take(published):
    """Solved runs are full points at their samples, the others hollow ones at their accuracy."""
    varied = [
        with_settings(0, None, 300_000, 0.02, learning_rate=0.1),
        with_settings(0, 20_000, 20_000, 0.995, learning_rate=0.002),
        with_settings(0, None, 500_000, 0.93, loss="all"),
        with_settings(1, 60_000, 60_000, 0.995, loss="answer", gradient_clip=1.0),
    ]
    runs = [run.model_copy(update={"experiment": "recipe"}) for run in varied]
    runs += [with_settings(seed, 80_000, 80_000, 0.995) for seed in range(3)]
    random.Random(1).shuffle(runs)
    samples, accuracies = settings_figure(runs, published).axes

    def rows_of(panel: Axes) -> list[str]:
        return [text.get_text() for text in sorted(panel.texts, key=lambda text: -text.xy[1])]

    def drawn(panel: Axes) -> list[tuple[str, float]]:
        row = {text.xy[1]: text.get_text() for text in panel.texts}
        return sorted(
            (row[float(y)], float(x))
            for line in panel.lines
            for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
        )

    solved = ["the reproduction's settings", "learning rate 0.002", "clip 1"]
    assert rows_of(samples) == solved  # none is empty
    assert rows_of(accuracies) == ["loss over all", "learning rate 0.1"]
    assert drawn(samples) == [("clip 1", 6e4), (solved[1], 2e4), *[(solved[0], 8e4)] * 3]
    assert drawn(accuracies) == [("learning rate 0.1", 2.0), ("loss over all", 93.0)]
    assert {line.get_markerfacecolor() for line in accuracies.lines} == {"white"}
    (star,) = samples.collections  # published: 54K
    assert star.get_offsets()[0][0] == 54_000


@pytest.mark.parametrize(
    ("given_settings", "words"),
    [
        ({"initialization": "torch7", "scale": "3.0"}, "torch7 × 3"),
        ({"scale": "2.0", "loss": "all"}, "weights × 2, loss over all"),
        ({"initialization": "normal_input_zero_bias", "forget_bias": "2.0"},
         "normal input, zero bias, forget bias 2"),
        ({"warmup_samples": "1500", "max_zero_fraction": "1.0", "precision": "32-true"},
         "warm-up 1.5K, up to 100% zeros, float32"),
    ],
)  # fmt: skip
def test_settings_are_named(given_settings, words):
    assert rows.named(given_settings) == words


def test_a_model_whose_runs_all_have_another_setting_than_others_says_so():
    """A row of a recipe must not read as one of the reproduction."""

    def run(model: str, depth: int, channels: int, zeros: float) -> Record:
        task = {"name": "addition", "digits": 15, "channels": channels, "max_zero_fraction": zeros}
        config = {"task": task, "model": {"name": model}}
        return made_up("paper", "addition", model, depth, channels=channels, config=config)

    runs = [run("tlstm_2d", 4, 400, 1.0), run("tlstm_2d", 7, 400, 1.0)]
    runs += [run("tlstm_3d_cn", 7, 200, zeros) for zeros in (0.0, 1.0)]
    found = rows.run_table(runs)
    assert [*zip(found["model"], found["depth"], found["settings"], strict=True)] == [
        ("tlstm_2d", 4, "max_zero_fraction=1.0"),
        ("tlstm_2d", 7, "max_zero_fraction=1.0"),
        ("tlstm_3d_cn", 7, "max_zero_fraction=0.0"),
        ("tlstm_3d_cn", 7, "max_zero_fraction=1.0"),
    ]


def test_rows_name_no_setting_that_all_runs_of_the_reproduction_have(results):
    usual = with_settings(8, 80_000, 80_000, 0.995, learning_rate=0.001, warmup_samples=0)
    varied = [
        with_settings(seed, 20_000, 20_000, 0.995, learning_rate=rate, warmup_samples=rise)
        for seed, (rate, rise) in enumerate([(0.001, 0), (0.002, 0), (0.001, 150)])
    ]
    varied = [
        run.model_copy(update={"experiment": "recipe", "identifier": f"{run.seed:016x}"})
        for run in varied
    ]
    names = ["", "learning_rate=0.002", "warmup_samples=150"]
    assert [*rows.run_table(varied, [usual])["settings"]] == names
    assert [*rows.run_table([*varied, usual])["settings"]] == [*names, ""]
    alone = rows.run_table(varied)["settings"]
    assert alone.tolist()[0] == "learning_rate=0.001; warmup_samples=0"

    other = with_settings(9, 80_000, 80_000, 0.995, learning_rate=0.004, warmup_samples=0)
    named = rows.run_table(varied, [usual, other])["settings"]  # the reproduction has two rates
    assert named.tolist()[0] == "learning_rate=0.001"

    append([usual, *varied], results)
    page = page_of(results, "recipe")
    assert "| 3D tLSTM+CN (learning rate 0.002) |" in page
    assert "In brackets are the settings" in page
    assert "In brackets" not in page_of(results, "fig4")


def test_published_rows_are_compared_with_the_runs_of_their_depth(published):
    """Where they have none, with the line that most seeds solve, in the fewest samples."""
    solved = {
        ("tlstm_3d_cn", 7, 0): 20_000,  # which is not to stand beside L = 10
        ("tlstm_3d_cn", 10, 0): 60_000,
        ("tlstm_3d_cn", 10, 1): 80_000,
        ("grid_lstm_tied", 7, 0): None,
        ("grid_lstm_untied", 7, 0): 300_000,
        ("grid_lstm_untied", 7, 1): None,
        ("grid_lstm_untied", 10, 0): 200_000,
        ("grid_lstm_untied", 10, 1): None,
    }
    runs = [
        made_up(
            "paper", "memorization", *key, samples_to_threshold=samples, samples=samples or 500_000,
            outcome="solved" if samples else "budget spent",
        )
        for key, samples in solved.items()
    ]  # fmt: skip
    table = rows.run_table(runs)
    found = {
        (row["model"], row["depth"]): rows.compared_row(row, table)
        for row in published[published["task"] == "memorization"].to_dict("records")
    }
    seven, ten = found["3D tLSTM+CN", "7"], found["3D tLSTM+CN", "10"]
    assert seven["measured"].endswith(" after 20K")
    assert seven["verdict"] == "better: 0.17 × the samples"  # of 115K
    assert ten["measured"].endswith(" after 70K (60K to 80K)")
    assert ten["verdict"] == "reproduced: 1.3 × the samples"  # of 54K
    grid_lstm = found["Grid LSTM", ""]
    assert (grid_lstm["configuration"], grid_lstm["L"]) == ("Grid LSTM (grid_lstm_untied)", "10")
    assert grid_lstm["verdict"] == "in part: 1 of 2 seeds, 1.3 × the samples"  # of 150K
    assert found["Stacked LSTM", ""]["verdict"] == "not run at the paper's size"


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ([0.989], "reproduced: -0.3 points"),
        ([0.97], "missed: -2.2 points"),
        ([0.972, 0.994], "reproduced: -0.9 points"),  # the published number is in the range
        ([0.998], "better: +0.6 points"),
    ],
)
def test_a_result_is_compared_with_the_published_one(accuracies, verdict, published):
    runs = [
        run("mnist", "tlstm_3d_cn", 3, seed, scale="paper", best={"accuracy": each, "loss": 1.0})
        for seed, each in enumerate(accuracies)
    ]
    (row,) = published[(published["task"] == "mnist") & (published["depth"] == "3")].to_dict(
        "records"
    )
    assert rows.compared_row(row, rows.run_table(runs))["verdict"] == verdict  # of 99.2%


def test_layer_normalization_that_sees_ahead_is_no_best_and_said_to_be():
    """It predicts what some of its locations have read."""
    shallow = [normalized("layer", 1, 1.4), normalized("channel", 2, 1.5)]
    ahead = normalized("layer", 2, 0.2)
    assert "sees_ahead" in rows.run_table(shallow)
    assert "AT L > 1" not in words(sweep_figure(shallow, "depth"))
    assert "AT L > 1" in words(sweep_figure([*shallow, ahead], "depth")).replace("\n", " ")
    named = verdict(rows.run_table([*shallow, ahead]))
    assert named == verdict(rows.run_table(shallow))
    assert "0.289" in verdict(rows.run_table([ahead]))  # 0.2 nats


def test_bits_of_runs_that_never_learnt_are_above_the_axis_and_those_that_see_ahead_nowhere():
    learnt = [normalized("channel", depth, nats) for depth, nats in ((1, 1.5), (2, 1.4))]
    others = [normalized("channel", 3, 3.5), normalized("layer", 2, 0.01)]
    panel = sweep_figure([*learnt, *others], "depth").axes[0]
    low, high = panel.get_ylim()
    assert 1.9 < low < 1.4 / math.log(2) < 1.5 / math.log(2) < high < 2.3
    assert [text.get_text() for text in panel.texts] == ["5.0 ↑"]  # 3.5 nats
    drawn = np.concatenate([line.get_ydata() for line in panel.lines])
    assert np.nanmin(drawn) > 1.9
    assert np.nanmax(drawn) < 2.3


@pytest.mark.parametrize("depth", [1, 2])
def test_the_page_says_what_sees_ahead(depth: int, results: Path):
    append([normalized("layer", depth, 1.0).model_copy(update={"experiment": "fig3"})], results)
    said = "predicts characters that it has seen" in page_of(results, "fig3")
    assert said == (depth > 1)


def test_figure_5_is_accuracy_against_epochs(published):
    curve = points([0.1, 0.4, 0.9])  # at 0, 10 and 20 samples
    runs = [run("permuted_digits", "slstm", depth, curve=curve) for depth in (1, 3)]
    *panels, runtime, _ = learning_curves(runs, published).axes
    assert [panel.get_title() for panel in panels] == ["L = 1", "L = 3"]
    for panel in panels:
        assert (panel.get_xscale(), panel.get_xlabel()) == ("linear", "epochs of 10 samples")
        epochs, accuracies = curves_of(panel)["sLSTM"]
        np.testing.assert_allclose(epochs, [1, 2])
        np.testing.assert_allclose(accuracies, [40, 90])
        assert len(panel.lines) == 1  # and no line to pass
    assert runtime.get_title() == "runtime"


def crowded(figure: Figure) -> list[str]:
    """The labels of axes that lie on one another, or beyond the edge of the picture."""
    figure.draw_without_rendering()
    found = []
    for panel in figure.axes:
        for axis in (panel.xaxis, panel.yaxis):
            if not panel.axison:
                continue
            shown = [label for label in axis.get_ticklabels() if label.get_text()]
            boxes = [label.get_window_extent() for label in shown]
            found += [
                f"{one.get_text()} on {other.get_text()}"
                for (one, box), (other, next_box) in pairwise(zip(shown, boxes, strict=True))
                if box.overlaps(next_box)
            ]
            box, edge = axis.label.get_window_extent(), figure.bbox
            if axis.label.get_text() and (box.y0 < edge.y0 or box.y1 > edge.y1):
                found.append(axis.label.get_text())
    return found


def test_labels_never_overlap(published):
    measured = [each for each in everything() if each.case.suite in ("targets", "size")]
    slow = [on_processor(each, quick=True) for each in measured if each.case.suite == "size"]
    figures = {}
    for machine, shown in machines([*measured, *slow]).items():
        figures |= runtime_pictures.pictures(machine, shown)
    runs = [
        made_up("paper", "memorization", model, depth, seed)
        for model in ("slstm", "tlstm_3d_cn")
        for depth in (1, 4, 7, 10)
        for seed in range(2)
    ]
    varied = [with_settings(0, 20_000, 20_000, 0.995, learning_rate=rate) for rate in (0.1, 0.2)]
    figures["curves"] = learning_curves(runs, published)
    figures["depth"] = sweep_figure(runs, "depth")
    figures["settings"] = settings_figure([*runs, *varied], published)
    assert {name: found for name in figures if (found := crowded(figures[name]))} == {}


def ablated(label: str, model: str, accuracy: float, **core) -> Record:
    """A run of an ablation: `model` with other settings of its core, under its own name."""
    return run(
        "memorization",
        model,
        4,
        label=label,
        config={"model": {"name": model, "label": label, "core": core}},
        best={"accuracy": accuracy, "loss": 1.0},
        threshold=0.99,
    )


def test_the_ablation_has_a_row_for_every_combination():
    runs = [
        ablated("2D tLSTM", "tlstm_2d", 0.5, kernel_size=3, normalization=None),
        ablated("2D tLSTM–F", "tlstm_2d", 0.6, kernel_size=2, normalization=None),
        ablated("2D tLSTM–F+CN", "tlstm_2d", 0.7, kernel_size=2, normalization="channel"),
        ablated("3D tLSTM", "tlstm_3d", 0.8, kernel_size=3, normalization=None),
    ]
    random.Random(0).shuffle(runs)
    accuracy, *_ = ablation_figure(runs).axes
    names = [label.get_text() for label in accuracy.get_yticklabels()][::-1]
    assert names == ["2D tLSTM", "2D tLSTM–F", "2D tLSTM–F+CN", "3D tLSTM"]
    (points_drawn,) = accuracy.containers
    np.testing.assert_allclose(points_drawn[0].get_xdata()[::-1], [50, 60, 70, 80])


def test_runs_of_one_file_under_several_names_are_not_averaged():
    runs = [ablated(name, "tlstm_2d", 0.5) for name in ("2D tLSTM", "2D tLSTM–F")]
    found = rows.measured(rows.run_table(runs))
    assert [row["configuration"] for _, row in found] == ["2D tLSTM", "2D tLSTM–F"]


# Pages


@pytest.mark.parametrize("experiment", ["fig3", "fig4", "fig5", *TABLES])
def test_without_records_a_page_says_so_and_how_to_measure(results, experiment):
    page = page_of(results, experiment)
    assert f"**Nothing was measured yet.** `make reproduce-{experiment}` does." in page
    assert "svg" not in page


@pytest.mark.parametrize("experiment", TABLES)
def test_a_table_has_the_published_rows_of_the_csv(results, experiment):
    page = page_of(results, experiment)
    with PUBLISHED.open() as file:
        wanted = [row for row in csv.DictReader(file) if row["table"] == experiment]
    found = [
        row
        for title in TABLES[experiment].values()
        for row in shown_rows(page, f"## {title}: published, not measured at the paper's scale")
    ]
    value = "test bits per character" if experiment == "table1" else "test accuracy (%)"
    assert [row[value] for row in found] == [row["value"] for row in wanted]
    for row, published_row in zip(found, wanted, strict=True):
        assert row["configuration"].startswith(f"**{published_row['model']}, published")
        assert published_row["parameters"] in row["configuration"]


@pytest.mark.parametrize(
    ("table", "figure", "task"),
    [("table1", "fig3", "python_topics"), ("table3", "fig5", "permuted_digits")],
)
def test_a_table_shows_the_runs_that_its_figure_does_not(results, table, figure, task):
    best = {0: {"accuracy": 0.5, "loss": 1.0}, 1: {"accuracy": 0.6, "loss": 1.2}}
    runs = [
        run(
            task,
            "tlstm_3d_cn",
            3,
            seed,
            experiment=experiment,
            best=best[seed],
            commit="ab" * 20,
            modified=seed == 1,
        )
        for seed, experiment in ((0, figure), (1, table))
    ]
    append([*runs, run(task, "grid_lstm_tied", 3, 1, experiment=table)], results)
    heading = f"## {tables.TITLES[task]}, smoke scale"
    (tied,) = shown_rows(page_of(results, table), heading)
    assert tied["configuration"] == "grid_lstm_tied"
    page = page_of(results, figure)
    (tensorized,) = shown_rows(page, heading)
    assert tensorized["seeds"] == "0, 1"
    measure = measure_of(task)
    expected = "1.587 (1.443 to 1.731)" if measure == BITS_PER_CHARACTER else "55.0 (50.0 to 60.0)"
    assert tensorized[f"test {measure.title}"] == expected
    assert "**Not the paper's size and data: no reproduction" in page


MARKS = st.text(alphabet="<>[]()|`*_~#&!$\\\n\t :/.-+='\"ahtpw1", max_size=30)
HOSTILE = [
    "<script>alert(1)</script>",
    "[text](http://evil.example)",
    "![picture](http://evil.example/x.png)",
    "http://evil.example www.evil.example <http://evil.example>",
    "# heading\n## heading",
    "x |\n| forged | 7 | 0 | 99.9 | 1K | 1 | solved | 1.0 |",
    "\\| \\\\| `` | `code` **bold** _slanted_ &lt; $x$",
]


def page_with(text: str) -> str:
    """A page of a run whose name, hardware, settings and command are this text."""
    like = run("addition", "slstm", 1)
    config = {"task": {"digits": text, "base": text}, "training": {"loss": text}}
    hardware = like.hardware.model_copy(update={"device": text})
    values = {"label": text, "hardware": hardware, "config": config, "overrides": [text]}
    record = like.model_copy(update=values)
    other = like.model_copy(update={"identifier": "f" * 16, "config": {"training": {"loss": "x"}}})
    nothing = tables.read_published(PUBLISHED).iloc[:0]
    shown = Experiment("Figure 4", "make")
    return experiment_page("fig4", shown, [record, other], nothing, pd.DataFrame())


def shape_and_words(page: str) -> tuple[list[str], str]:
    """The elements of a page, and its text, as a parser of Markdown that is not ours reads them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    parts = [part for token in tokens for part in (token.children or [])]
    words = "".join(part.content for part in parts if part.type == "text")
    elements = [token.type for token in tokens]
    return elements + [part.type for part in parts if part.type != "text"], words


@given(MARKS)
@settings(max_examples=40, deadline=None)
def test_what_records_hold_is_text_on_a_page(text):
    expected, _ = shape_and_words(page_with("plain"))
    elements, words = shape_and_words(page_with(text))
    assert Counter(elements) == Counter(expected)
    assert " ".join(text.split()) in " ".join(words.split())


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_of_records_is_text_on_a_page(text):
    """Addresses are no links either, which other parsers make of them."""
    shape, _ = shape_and_words(page_with("plain"))
    page = page_with(text)
    assert Counter(shape_and_words(page)[0]) == Counter(shape)
    assert " ".join(text.split()) in shape_and_words(page)[1]
    assert not re.search(r"(?<!\\)://evil|www\.evil", page)


def test_markup_of_records_is_text_on_the_front_page_too(results):
    labels = [text.replace("\n", " ").replace("$", "") for text in HOSTILE]  # as a record's may be
    append([run("addition", f"m{len(label)}", 1, label=label) for label in labels], results)
    assert main(["fig4", "--results", str(results)]) == 0
    draw_front(results)
    for front in (results / "README.md", results / "fig4" / "README.md"):
        elements, _ = shape_and_words(front.read_text(encoding="utf-8"))
        assert elements.count("html_block") == 1  # which says what made the page
        assert "html_inline" not in elements


@given(MARKS)
def test_code_is_code_whatever_it_holds(text):
    assume(text.strip())
    ((token,),) = [
        each.children for each in MarkdownIt("commonmark").parse(code(text)) if each.children
    ]
    assert (token.type, token.content.strip()) == ("code_inline", " ".join(text.split()))


def test_the_page_of_runtime_is_one_to_read():
    """The rest is in its csv."""
    page = (PUBLISHED.parent / "runtime" / "README.md").read_text(encoding="utf-8")
    assert len(page.splitlines()) <= 100
