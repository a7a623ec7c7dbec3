"""Figures 3 and 5, the ablation and Tables 1 to 3: what they draw, and what their pages say."""

import csv
import math
import random
import shutil
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from test_figures import (
    PUBLISHED_CSV,
    cells,
    curves_of,
    published,
    results,
    shown_rows,
    synthetic_record,
    words,
)
from test_results import points
from tlstm.figures import main
from tlstm.records import table as tables
from tlstm.records.measures import ACCURACY, BITS_PER_CHARACTER, measure_of
from tlstm.records.schema import (
    Record,
)
from tlstm.records.store import (
    append,
)
from tlstm.reporting import growth, rows
from tlstm.reporting.learning_curves import learning_curves
from tlstm.reporting.page import best
from tlstm.reporting.settings import settings_figure
from tlstm.reporting.style import STYLES
from tlstm.reporting.sweeps import ablation_figure, sweep_figure

__all__ = ["published", "results"]  # fixtures

TABLES = {
    "table1": {"wikipedia": "Wikipedia"},
    "table2": {"addition": "Addition", "memorization": "Memorization"},
    "table3": {"mnist": "Sequential MNIST", "permuted_mnist": "Permuted MNIST"},
}


def run(task: str, model: str, depth: int, seed: int = 0, **changes) -> Record:
    """A made-up run of a task that no run solves."""
    unsolvable = {"threshold": 1.0, "samples_to_threshold": None, "outcome": "budget spent"}
    like = synthetic_record("smoke", "addition", model, depth, seed, channels=24)
    config = like.config | {"task": {"name": task}, "training": {"samples_per_epoch": 10}}
    identifier = f"{crc32(repr((task, model, depth, seed)).encode()):016x}"
    values = {"task": task, "config": config, "identifier": identifier, **unsolvable, **changes}
    return Record.model_validate(like.model_dump() | values)


def page_of(results: Path, experiment: str) -> str:
    assert main([experiment, "--results", str(results)]) == 0
    return (results / experiment / "README.md").read_text(encoding="utf-8")


# What a task is measured by


@pytest.mark.parametrize(
    ("task", "measure"),
    [
        ("addition", ACCURACY),
        ("permuted_digits", ACCURACY),
        ("wikipedia", BITS_PER_CHARACTER),
        ("wikipedia_sample", BITS_PER_CHARACTER),
        ("python_topics", BITS_PER_CHARACTER),
    ],
)
def test_a_task_and_its_stand_ins_have_one_measure(task, measure):
    assert measure_of(task) == measure


def test_bits_per_character_are_the_loss_in_bits():
    """A loss of ln 205 nats is a guess among 205 characters: log₂ 205 = 7.679 bits."""
    table = tables.run_table(
        [run("wikipedia", "slstm", 1, best={"accuracy": 0.1, "loss": math.log(205)})]
    )
    (bits,) = BITS_PER_CHARACTER.of(table, "best")
    assert bits == pytest.approx(7.6795, abs=1e-4)
    assert rows.measured(table)["bits per character"].tolist() == ["7.679"]


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
    assert (bits.get_ylabel(), runtime.get_ylabel()) == ("bits per character", "ms per timestep")
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


def times(*rows: tuple[str, int, int, str, float]) -> pd.DataFrame:
    """What a benchmark has measured of memorization at the paper's sizes."""
    measured = [("paper", "memorization", *row, True) for row in rows]
    return pd.DataFrame(measured, columns=growth.COLUMNS)


def test_the_benchmarks_runtimes_take_the_place_of_those_on_a_shared_device(published, results):
    device = "NVIDIA H200"
    runs = [
        synthetic_record("paper", "memorization", model, depth, channels=100)
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
    table = growth.by_benchmark(tables.run_table(runs), measured)
    assert table["benchmark"].tolist() == [False, False, True, True]  # in the paper's order
    own = [run.milliseconds_per_timestep for run in runs[2:]]
    assert table["milliseconds_per_timestep"].tolist() == [*own, 5.0, 6.0]
    *_, runtime, _ = learning_curves(runs, published).axes
    assert runtime.get_title() == "runtime"
    assert len(runtime.containers) == 2


def with_settings(seed: int, solved: int | None, samples: int, best: float, **training) -> Record:
    """A run of Figure 4's best model with settings of the training."""
    like = synthetic_record("paper", "memorization", "tlstm_3d_cn", 10, seed)
    learnt = {"learning_rate": 0.001, **training}
    name = f"{crc32(repr((seed, training)).encode()):016x}"
    changes = {
        "identifier": name,
        "config": like.config | {"training": learnt},
        "samples": samples,
        "samples_to_threshold": solved,
        "outcome": "solved" if solved else "budget spent",
        "best": {"accuracy": best, "loss": 1.0},
    }
    return Record.model_validate(like.model_dump() | changes)


def rows_of(panel: Axes) -> list[tuple[str, str, float, bool]]:
    """Row, marker, samples and whether it was solved, of every point of a settings' picture."""
    names = panel.figure.axes[0].get_yticklabels()  # of all panels
    middles = dict(zip(panel.get_yticks(), names, strict=True))
    return [
        (
            middles[min(middles, key=lambda middle: abs(middle - y))].get_text(),
            str(line.get_marker()),
            float(x),
            line.get_markerfacecolor() != "white",
        )
        for line in panel.lines
        if line.get_marker() != "None"
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]


def test_settings_are_rows_by_the_samples_that_they_take(published):
    runs = [
        *(with_settings(seed, 80_000, 80_000, 0.995) for seed in range(3)),
        with_settings(0, None, 300_000, 0.02, learning_rate=0.1),
        with_settings(0, 20_000, 20_000, 0.995, learning_rate=0.002),
        with_settings(0, None, 500_000, 0.93, loss="all"),
        with_settings(1, 60_000, 60_000, 0.995, loss="answer", gradient_clip=1.0),
    ]
    random.Random(1).shuffle(runs)
    figure = settings_figure(runs, published)
    (panel,) = figure.axes
    assert panel.get_title() == "L = 10"
    expected = [
        ("loss answer, gradient clip 0.0, learning rate 0.001", [(80_000, True)] * 3),
        ("but learning rate 0.002", [(20_000, True)]),
        ("but gradient clip 1.0", [(60_000, True)]),
        ("but loss all", [(500_000, False)]),
        ("but learning rate 0.1", [(300_000, False)]),
    ]
    names = [label.get_text() for label in panel.get_yticklabels()]
    assert names[::-1] == [name for name, _ in expected]
    for name, ended in expected:
        found = [(x, solved) for row, _, x, solved in rows_of(panel) if row == name]
        assert found == ended
    assert sorted(text.get_text() for text in panel.texts) == ["2%", "93%"]
    (star,) = panel.collections  # published: 54K
    assert star.get_offsets()[0][0] == 54_000


def test_rows_are_named_by_how_they_differ_from_the_reproduction(published):
    """However few runs it has; what has its weights from the layer alone is called so."""
    drawn = {"initial_range": 0.0, "initial_input": "uniform", "initial_bias": "uniform"}
    begun = {"initial_range": 0.08, "initial_input": "normal", "initial_bias": "zero"}
    recipes = [
        with_settings(seed, 20_000, 20_000, 0.995, **drawn, gradient_clip=1.0) for seed in range(2)
    ]
    recipes += [
        with_settings(2, 30_000, 30_000, 0.995, **drawn),
        with_settings(3, 40_000, 40_000, 0.995, **begun | {"initial_range": 0.0}),
        with_settings(4, None, 50_000, 0.9, **begun, max_samples=50_000),
    ]
    recipes = [run.model_copy(update={"experiment": "recipe"}) for run in recipes]
    usual = with_settings(0, 80_000, 80_000, 0.995, **begun, max_samples=500_000)
    (panel,) = settings_figure([*recipes, usual], published).axes
    names = [label.get_text().replace("\n", " ") for label in panel.get_yticklabels()]
    assert names[::-1] == [
        "gradient clip 0.0, initial range 0.08, initial input normal, initial bias zero",
        "but the layer's own weights, gradient clip 1.0",
        "but the layer's own weights",
        "but initial range 0.0",
    ]
    assert [text.get_text() for text in panel.texts] == ["90%"]  # in the reproduction's row


def test_a_model_whose_runs_all_have_another_setting_than_others_says_so():
    """A row of a recipe must not read as one of the reproduction."""

    def run(model: str, depth: int, channels: int, zeros: float) -> Record:
        like = synthetic_record("paper", "addition", model, depth)
        task = {"name": "addition", "digits": 15, "channels": channels, "most_zeros": zeros}
        core = {"rank": 2 if "2d" in model else 3}
        return like.model_copy(
            update={
                "identifier": f"{crc32(repr((model, depth, zeros)).encode()):016x}",
                "channels": channels,
                "config": like.config | {"task": task, "model": {"name": model, "core": core}},
            }
        )

    runs = [run("tlstm_2d", 4, 400, 1.0), run("tlstm_2d", 7, 400, 1.0)]
    runs += [run("tlstm_3d_cn", 7, 200, zeros) for zeros in (0.0, 1.0)]
    found = tables.run_table(runs)
    assert [*zip(found["model"], found["depth"], found["variant"], strict=True)] == [
        ("tlstm_2d", 4, "most_zeros=1.0"),
        ("tlstm_2d", 7, "most_zeros=1.0"),
        ("tlstm_3d_cn", 7, "most_zeros=0.0"),
        ("tlstm_3d_cn", 7, "most_zeros=1.0"),
    ]


def test_rows_name_no_setting_that_all_runs_of_the_reproduction_have(results):
    usual = with_settings(8, 80_000, 80_000, 0.995, learning_rate=0.001, warm_up=0)
    varied = [
        with_settings(seed, 20_000, 20_000, 0.995, learning_rate=rate, warm_up=rise)
        for seed, (rate, rise) in enumerate([(0.001, 0), (0.002, 0), (0.001, 150)])
    ]
    varied = [
        run.model_copy(update={"experiment": "recipe", "identifier": f"{run.seed:016x}"})
        for run in varied
    ]
    names = ["", "learning_rate=0.002", "warm_up=150"]
    assert [*tables.run_table(varied, [usual])["variant"]] == names
    assert [*tables.run_table([*varied, usual])["variant"]] == [*names, ""]
    alone = tables.run_table(varied)["variant"]
    assert alone.tolist()[0] == "warm_up=0; learning_rate=0.001"

    other = with_settings(9, 80_000, 80_000, 0.995, learning_rate=0.004, warm_up=0)
    named = tables.run_table(varied, [usual, other])["variant"]  # the reproduction has two rates
    assert named.tolist()[0] == "learning_rate=0.001"

    append([usual, *varied], results)
    page = page_of(results, "recipe")
    assert "| 3D tLSTM+CN (learning_rate=0.002) |" in page
    assert "In brackets stand the settings" in page
    assert "In brackets" not in page_of(results, "fig4")


def test_accuracies_of_runs_that_ended_close_to_each_other_are_one_text(published):
    ended = [(501_000, 0.92), (5_000_000, 0.95), (498_000, 0.9), (501_000, 0.885)]
    runs = [with_settings(seed, None, *end) for seed, end in enumerate(ended)]
    (panel,) = settings_figure(runs, published).axes
    told = {text.get_text(): text.xy[0] for text in panel.texts if text.get_text()}
    assert told == {"90%, 92%, 88%": 501_000, "95%": 5_000_000}


def test_models_with_the_same_settings_have_lanes_of_their_own(published):
    """What they differ in by themselves is no setting."""
    runs = [
        like.model_copy(
            update={
                "identifier": f"{crc32(repr((model, depth, bias)).encode()):016x}",
                "config": like.config
                | {"model": {"name": model, "depth": depth, "core": {"forget_bias": bias}}},
            }
        )
        for model in ("tlstm_2d", "tlstm_3d_cn")
        for depth in (7, 10)
        for bias in ((1.0, 4.0) if depth == 7 else (1.0,))
        for like in [synthetic_record("paper", "memorization", model, depth)]
    ]
    figure = settings_figure(runs, published)
    assert [panel.get_title() for panel in figure.axes] == ["L = 7", "L = 10"]
    names = {label.get_text() for label in figure.axes[0].get_yticklabels()}
    assert names == {"forget bias 1.0", "but forget bias 4.0"}
    markers = {STYLES[model]["marker"] for model in ("tlstm_2d", "tlstm_3d_cn")}
    for panel, there in zip(figure.axes, (names, {"forget bias 1.0"}), strict=True):
        places = {(row, marker) for row, marker, _, _ in rows_of(panel)}
        assert places == {(row, marker) for row in there for marker in markers}
    heights = {
        float(y) for panel in figure.axes for line in panel.lines if line.get_marker() != "None"
        for y in line.get_ydata()
    }  # fmt: skip
    assert len(heights) == 4


def test_a_run_has_the_settings_that_it_was_recorded_before(published):
    """A record from before there were such settings is in one row with those that leave them."""
    runs = [
        with_settings(0, 80_000, 80_000, 0.995),
        with_settings(1, 70_000, 70_000, 0.995, loss="answer", initial_scale=1.0),
    ]
    assert set(tables.run_table(runs)["variant"]) == {""}
    assert len(settings_figure(runs, published).axes[0].get_yticklabels()) == 1


def test_published_rows_stand_beside_what_was_measured_at_the_papers_scale(results):
    """At their L; where they have none, the line that most seeds solve, in the fewest samples."""
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
        synthetic_record(
            "paper", "memorization", *key, samples_to_threshold=samples, samples=samples or 500_000,
            outcome="solved" if samples else "budget spent",
        )
        for key, samples in solved.items()
    ]  # fmt: skip
    other = with_settings(5, 10_000, 10_000, 1.0, learning_rate=0.1)
    append([*runs, other.model_copy(update={"experiment": "recipe"})], results)
    page = page_of(results, "table2")
    cells = [[cell.strip() for cell in line.split("|")] for line in page.splitlines()]
    beside = {
        (row[1].strip("*"), row[2]): row[8:11] for row in cells if "published**" in "|".join(row)
    }
    assert beside["3D tLSTM+CN, published", "7"][::2] == ["3D tLSTM+CN, L = 7", "20K"]
    assert beside["3D tLSTM+CN, published", "10"][0] == "3D tLSTM+CN, L = 10"
    assert beside["3D tLSTM+CN, published", "10"][2] == "70K (60K to 80K)"
    grid_lstm = ["grid_lstm_untied, L = 10", "200K; 1 of 2 not within 500K"]
    assert beside["Grid LSTM, published", "—"][::2] == grid_lstm
    assert beside["Stacked LSTM, published", "—"] == ["—"] * 3
    assert "measured: configuration" not in page_of(results, "recipe")


def test_layer_normalization_that_sees_ahead_is_no_best_and_said_to_be():
    """It predicts what some of its locations have read."""
    shallow = [normalized("layer", 1, 1.4), normalized("channel", 2, 1.5)]
    ahead = normalized("layer", 2, 0.2)
    assert "sees_ahead" in tables.run_table(shallow)
    assert "AT L > 1" not in words(sweep_figure(shallow, "depth"))
    assert "AT L > 1" in words(sweep_figure([*shallow, ahead], "depth")).replace("\n", " ")
    named = best(tables.run_table([*shallow, ahead]))
    assert named == best(tables.run_table(shallow))
    assert "0.289" in best(tables.run_table([ahead]))  # 0.2 nats


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


def ablated(label: str, model: str, accuracy: float, **core) -> Record:
    """A run of an ablation: `model` with other settings of its core, under its own name."""
    config = {"model": {"name": model, "label": label, "core": core}}
    return run(
        "memorization",
        model,
        4,
        crc32(label.encode()) % 1000,
        label=label,
        config=config,
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
    assert rows.measured(tables.run_table(runs))["configuration"].tolist() == [
        "2D tLSTM",
        "2D tLSTM–F",
    ]


# Pages


@pytest.mark.parametrize("experiment", ["fig3", "fig4", "fig5", *TABLES])
def test_without_records_a_page_says_so_and_how_to_measure(results, experiment):
    page = page_of(results, experiment)
    assert f"**Nothing was measured yet.** `make reproduce-{experiment}` does." in page
    assert "scale" not in page.split("## Published")[0]


@pytest.mark.parametrize("experiment", TABLES)
def test_a_table_has_the_published_rows_of_the_csv(results, experiment):
    page = page_of(results, experiment)
    with PUBLISHED_CSV.open() as file:
        wanted = [row for row in csv.DictReader(file) if row["table"] == experiment]
    found = [
        row
        for title in TABLES[experiment].values()
        for row in shown_rows(page, f"### {title}, published")
    ]
    assert [row["configuration"] for row in found] == [
        f"**{row['model']}, published**" for row in wanted
    ]
    value = "bits per character" if experiment == "table1" else "accuracy (%)"
    assert [row[value] for row in found] == [row["value"] for row in wanted]
    assert {row["parameters"] for row in found} <= {r["parameters"] or "—" for r in wanted}


def test_published_rows_go_by_the_names_of_the_tasks(published):
    assert len(tables.published_rows(published, "permuted_mnist")) == 10
    assert set(published["task"]) == {task for of_table in TABLES.values() for task in of_table}


@pytest.mark.parametrize(
    ("table", "figure", "task"),
    [("table1", "fig3", "python_topics"), ("table3", "fig5", "permuted_digits")],
)
def test_a_table_shows_its_own_runs_and_its_figures(results, table, figure, task):
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
    page = page_of(results, table)
    title = tables.TITLES[task]
    tied, tensorized = sorted(
        shown_rows(page, f"### {title}, smoke scale"), key=lambda row: row["seeds"], reverse=True
    )
    assert tied["configuration"] == "grid_lstm_tied"
    assert tensorized["seeds"] == "0, 1"
    assert {row["scale and data"] for row in (tied, tensorized)} == {f"smoke, {task}"}
    assert tensorized["commit"] == "abababa; abababa, changed"
    measure = measure_of(task)
    expected = "1.587 ± 0.144" if measure == BITS_PER_CHARACTER else "55.0 ± 5.0"
    assert tensorized[measure.title] == expected
    assert f"**Not the paper's data: {task}.**" in page
    assert f"[`../{figure}/records.jsonl`](../{figure}/records.jsonl)" in page
    assert "published" not in str(shown_rows(page, f"### {title}, smoke scale"))
    assert "svg" not in page
    assert pd.read_csv(results / table / "runs.csv")["experiment"].nunique() == 2


def test_a_page_tells_the_best_where_nothing_is_solved(results):
    losses = {"slstm": 1.3, "tlstm_2d": 1.1}
    append(
        [
            run("wikipedia", model, 2, experiment="fig3", best={"accuracy": 0.5, "loss": loss})
            for model, loss in losses.items()
        ],
        results,
    )
    page = page_of(results, "fig3")
    assert "**Best bits per character**: 1.587, 2D tLSTM, L = 2." in page
    assert "solved" not in "".join(cells(page.split("## Smoke scale")[1])[0])


def test_figures_take_no_torch_and_no_wandb(tmp_path):
    """So that drawing takes seconds."""
    shutil.copy(PUBLISHED_CSV, tmp_path)
    code = (
        "import sys; from tlstm.figures import main; "
        f"main(['--results', {str(tmp_path)!r}]); "
        "sys.exit(' '.join({'torch', 'wandb', 'hydra', 'lightning'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
