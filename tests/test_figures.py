import csv
import itertools
import math
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure

from tlstm import figures, report
from tlstm.figures import main
from tlstm.records import table as tables
from tlstm.records.schema import CurvePoint, Record
from tlstm.records.store import append
from tlstm.reporting import rows
from tlstm.reporting.comparison import GENERATED, LABELS
from tlstm.reporting.learning_curves import learning_curves, mean_curve
from tlstm.reporting.pages import BEGIN, END, verdict
from tlstm.reporting.style import GREY, STYLES, draw_means
from tlstm.reporting.sweeps import sweep_figure
from worlds import CPU, H200, PUBLISHED, STARTED, made_up, make_record, points

DRAWN = (".csv", ".png", ".svg")
PLACES = [(scale, task) for scale in ("paper", "smoke") for task in GENERATED]


def made_up_runs(scale, task, depths, seeds=(0,)) -> list[Record]:
    runs = itertools.product(LABELS, depths, seeds)
    return [made_up(scale, task, *run) for run in runs]


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return tables.read_published(PUBLISHED)


@pytest.fixture
def results(tmp_path) -> Path:
    shutil.copy(PUBLISHED, tmp_path)
    return tmp_path


def curves_of(panel: Axes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    drawn = [line for line in panel.lines if not str(line.get_label()).startswith("_")]
    return {line.get_label(): (line.get_xdata(), line.get_ydata()) for line in drawn}


def bands(panel: Axes) -> list[PolyCollection]:
    return [shape for shape in panel.collections if isinstance(shape, PolyCollection)]


def words(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.texts)


# Figure 4


@pytest.mark.parametrize("depths", [(1,), (1, 2, 4), (1, 4, 7, 10)])
def test_figure4_has_every_configuration_in_every_panel(published, depths):
    records = made_up_runs("smoke", "addition", depths)
    random.Random(0).shuffle(records)
    figure = learning_curves(records, published)
    *panels, runtime, legend = figure.axes
    assert [panel.get_title() for panel in panels] == [f"L = {depth}" for depth in depths]
    for panel in panels:
        assert list(curves_of(panel)) == list(LABELS.values())
        assert panel.get_xscale() == "log"
        assert panel.get_xlim() == panels[0].get_xlim()
        assert not bands(panel)
    assert len(runtime.containers) == len(LABELS)
    for line in runtime.containers:
        assert line[0].get_xdata().tolist() == list(depths)
    entries = [text.get_text() for text in legend.get_legend().get_texts()]
    models = ["Stacked LSTM", "Grid LSTM", *(["3D tLSTM+CN"] if {7, 10} & {*depths} else [])]
    expected = [*LABELS.values(), *(f"{model}, published" for model in models)]
    assert [entry for entry in entries if entry != "never left chance"] == expected


def test_configurations_that_the_paper_lacks_come_after_its_own(published):
    models = ("srnn", "grid_lstm", "tlstm_3d", "slstm")
    curve = points([0.1, 0.5, 0.9])
    runs = [made_up("smoke", "addition", model, 1, curve=curve) for model in models]
    panel = learning_curves(runs, published).axes[0]
    assert list(curves_of(panel)) == ["sLSTM", "3D tLSTM", "grid_lstm", "srnn"]
    assert len({line.get_color() for line in panel.lines}) == 5  # four and the threshold


def test_configurations_differ_in_colour_and_marker():
    for what in ("color", "marker"):
        assert len({look[what] for look in STYLES.values()}) == len(STYLES) == len(LABELS)


def test_figure4_draws_the_mean_of_seeds_in_per_cent(published):
    runs = [
        made_up("smoke", "addition", "slstm", 1, seed, curve=points(accuracies))
        for seed, accuracies in enumerate([[0.0, 0.1, 0.5], [0.0, 0.3, 0.8]])
    ]
    panel = learning_curves(runs, published).axes[0]
    samples, accuracies = curves_of(panel)["sLSTM"]
    assert samples.tolist() == [10, 20]  # a logarithmic axis has no 0
    np.testing.assert_allclose(accuracies, [20, 65])
    (band,) = bands(panel)
    heights = np.unique(band.get_paths()[0].vertices[:, 1].round(9))
    np.testing.assert_allclose(heights, [10, 30, 50, 80])


def stars(panel: Axes) -> list[tuple[float, float]]:
    shapes = [shape for shape in panel.collections if isinstance(shape, PathCollection)]
    return sorted(tuple(float(number) for number in shape.get_offsets()[0]) for shape in shapes)


@pytest.mark.parametrize("task", GENERATED)
def test_published_marks_stand_where_the_csv_says(published, task):
    with PUBLISHED.open() as file:
        rows = [row for row in csv.DictReader(file) if row["table"] == "table2"]
    rows = [row for row in rows if row["task"] == task]
    assert len(rows) == 4
    figure = learning_curves(made_up_runs("paper", task, (4, 7, 10)), published)
    for panel, depth in zip(figure.axes, ("4", "7", "10"), strict=False):
        expected = [
            (
                float(row["samples"].replace("K", "e3").replace("M", "e6")),
                float(row["value"].replace(">", "")),
            )
            for row in rows
            if row["depth"] in ("", depth)
        ]
        assert stars(panel) == sorted(expected)
        assert len(expected) == (2 if depth == "4" else 3)


def test_a_smoke_picture_says_so_on_its_face(published):
    smoke = learning_curves(made_up_runs("smoke", "addition", (1,)), published)
    said = "SMOKE SCALE: addition of 2-digit integers in base 6, M = 48, not the paper's"
    assert said in words(smoke).replace("\n", " ")
    assert "published marks are for the paper's sizes" in words(smoke).replace("\n", " ")
    paper = words(learning_curves(made_up_runs("paper", "addition", (1,), (0, 3)), published))
    assert "SCALE" not in paper
    assert "Addition of 15-digit integers, M = 400" in paper
    assert "NVIDIA H200" in paper
    assert "2 seeds: lines are means" in paper


def test_a_picture_is_of_one_scale_and_task(published):
    mixed = [made_up(scale, "addition", "slstm", 1) for scale in ("smoke", "paper")]
    for records in (mixed, []):
        with pytest.raises(ValueError, match="one scale and one task"):
            learning_curves(records, published)


def test_only_the_latest_of_a_run_is_drawn(published):
    old = made_up("smoke", "addition", "slstm", 1, curve=points([0.1] * 3))
    finished = old.finished.replace(hour=20)
    changes = {"curve": points([0.9] * 3), "finished": finished, "milliseconds_per_timestep": 8.0}
    panel, runtime, _ = learning_curves([old.model_copy(update=changes), old], published).axes
    assert set(curves_of(panel)["sLSTM"][1]) == {90.0}
    assert runtime.containers[0][0].get_ydata().tolist() == [8000.0]


def test_runtimes_of_two_machines_are_not_averaged(published):
    runs = [
        made_up("smoke", "addition", "slstm", 1, seed, milliseconds_per_timestep=value)
        for seed, value in enumerate((1.0, 3.0, 500.0))
    ]
    runs[2] = runs[2].model_copy(update={"hardware": H200})
    *_, runtime, _ = learning_curves(runs, published).axes
    assert runtime.containers[0][0].get_ydata().tolist() == [2000.0]
    assert "AMD" in runtime.get_title()
    ((_, row),) = rows.measured(rows.run_table(runs))
    assert row["µs per timestep"] == "2000"


def test_runs_with_other_settings_are_lines_of_their_own(published):
    usual = made_up("smoke", "addition", "slstm", 1, 0)
    training = usual.config["training"] | {"learning_rate": 0.1}
    config = usual.config | {"seed": 1, "training": training}
    config |= {
        "trainer": {"accelerator": "gpu", "threads": 3}
    }  # where it ran is no setting of what it learnt
    other = made_up("smoke", "addition", "slstm", 1, 1, config=config)
    labels = ["sLSTM (learning rate 0.001)", "sLSTM (learning rate 0.1)"]
    assert list(curves_of(learning_curves([usual, other], published).axes[0])) == labels
    shown = rows.measured(rows.run_table([usual, other]))
    assert [row["configuration"] for _, row in shown] == labels


def test_a_setting_of_none_is_as_one_that_is_not_there():
    lacking = made_up("smoke", "addition", "slstm", 1, 0, config={"training": {}})
    none = lacking.model_copy(update={"config": {"initialization": {"hidden_range": None}}})
    other = lacking.model_copy(update={"config": {"initialization": {"hidden_range": 0.1}}})
    assert tables.settings(none) == tables.settings(lacking) != tables.settings(other)


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=12).map(points), min_size=1, max_size=4)
)
def test_mean_curve_agrees_with_one_number_at_a_time(curves):
    curve = mean_curve(curves)
    for samples, mean, lowest, highest in zip(*curve, strict=True):
        values = []
        for run in curves:  # every run was measured at the same places until it stopped
            values.append(next(p.accuracy for p in reversed(run) if p.samples <= samples))
        assert math.isclose(mean, sum(values) / len(values), abs_tol=1e-12)
        assert (lowest, highest) == (min(values), max(values))
    assert curve.samples.tolist() == [point.samples for point in max(curves, key=len)]


def test_mean_curve_is_linear_between_other_seeds_points():
    first = [CurvePoint(samples=s, accuracy=a, loss=0, seconds=0) for s, a in ((1, 0), (5, 0.8))]
    second = [CurvePoint(samples=s, accuracy=a, loss=0, seconds=0) for s, a in ((2, 0.4), (4, 1))]
    curve = mean_curve([first, second])
    assert curve.samples.tolist() == [2, 4, 5]
    np.testing.assert_allclose(curve.mean, [0.3, 0.8, 0.9])
    np.testing.assert_allclose(curve.lowest, [0.2, 0.6, 0.8])


# Sweeps


def test_a_sweep_shows_what_did_not_reach_the_threshold_as_hollow():
    runs = [
        made_up(
            "smoke",
            "addition",
            model,
            4,
            channels=channels,
            samples=9_000,
            samples_to_threshold=samples,
            outcome="solved" if samples else "budget spent",
        )
        for model, channels, samples in [
            ("slstm", 8, None),
            ("slstm", 16, 6_000),
            ("tlstm_3d_cn", 8, 3_000),
            ("tlstm_3d_cn", 16, 2_000),
        ]
    ]
    accuracy, samples, runtime, legend = sweep_figure(runs, "channels").axes
    assert "99%" in samples.get_title()
    drawn = [line[0].get_ydata().tolist() for line in samples.containers]
    np.testing.assert_array_equal(drawn, [[np.nan, 6_000], [3_000, 2_000]])
    (hollow,) = (line for line in samples.lines if line.get_label() == "_not within")
    assert (hollow.get_xdata().tolist(), hollow.get_ydata().tolist()) == ([8], [9_000])
    for panel in (accuracy, runtime):
        assert len(panel.containers) == 2
    names = [text.get_text() for text in legend.get_legend().get_texts()]
    assert names == ["sLSTM", "3D tLSTM+CN"]


def test_models_of_several_sizes_are_lines_of_their_own():
    runs = [
        made_up("smoke", "addition", "tlstm_2d", depth, channels=channels)
        for depth in (1, 2)
        for channels in (8, 16)
    ]
    names = [
        list(dict.fromkeys(tables.line_names(rows.run_table(runs), along)))
        for along in ("depth", "channels")
    ]
    assert names == [
        ["2D tLSTM, M = 8", "2D tLSTM, M = 16"],
        ["2D tLSTM, L = 1", "2D tLSTM, L = 2"],
    ]
    lines = sweep_figure(runs, "depth").axes[0].containers
    assert [line[0].get_linestyle() for line in lines] == ["-", "--"]


# Tables


@pytest.mark.parametrize(
    ("number", "text"),
    [(298_000, "298K"), (5_000_000, "5M"), (1_050_000, "1.05M"), (999_999, "1M"), (42, "42")],
)
def test_numbers_for_people(number, text):
    assert tables.people(number) == text


@given(st.integers(0, 10**9))
def test_people_keep_three_digits(number):
    assert math.isclose(tables.number(tables.people(number)), number, rel_tol=0.005)


def runs_with(*samples_to_threshold) -> pd.DataFrame:
    return rows.run_table(
        [
            made_up(
                "smoke",
                "addition",
                "slstm",
                1,
                seed,
                samples_to_threshold=samples,
                outcome="solved" if samples else "budget spent",
                samples=samples or 500_000,
            )
            for seed, samples in enumerate(samples_to_threshold)
        ]
    )


@pytest.mark.parametrize(
    ("samples", "text", "solved"),
    [
        ([298_000], "298K", "yes"),
        ([None], "not within 500K", "no"),
        ([None, None], "not within 500K", "no"),
        ([100_000, 300_000], "200K (100K to 300K)", "yes"),
        ([298_000, None], "298K; 1 of 2 not within 500K", "1 of 2 seeds"),
    ],
)
def test_samples_to_the_threshold_in_words(samples, text, solved):
    runs = runs_with(*samples)
    assert tables.samples_text(runs) == text
    assert tables.solved_text(runs) == solved


def test_a_mean_over_seeds_has_its_range():
    assert rows.mean_range(pd.Series([90.0, 90.0, 96.0]), 1) == "92.0 (90.0 to 96.0)"
    assert rows.mean_range(pd.Series([99.04]), 1) == "99.0"
    assert rows.mean_range(pd.Series([None]), 1) == tables.UNKNOWN


def test_the_verdict_counts_what_solved_the_task():
    runs = [
        made_up(
            "smoke",
            "addition",
            model,
            depth,
            seed,
            samples_to_threshold=3_000 if solved else None,
            outcome="solved" if solved else "budget spent",
        )
        for model, depth, seed, solved in [
            ("slstm", 1, 0, False),
            ("slstm", 2, 0, False),
            ("tlstm_3d", 1, 0, True),
            ("tlstm_3d", 2, 0, True),
            ("tlstm_3d", 2, 1, False),
        ]
    ]
    assert verdict(rows.run_table(runs)).startswith(
        "Of 4 configurations 1 are solved with every seed, 1 with some, 2 with none. "
        "The best on validation is 3D tLSTM, L = 1: "
    )


# The page and its files


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, list[Record]]:
    directory = tmp_path_factory.mktemp("results")
    shutil.copy(PUBLISHED, directory)
    records = [
        made_up(scale, task, model, depth, seed, commit=f"{depth:040x}")
        for scale, task in PLACES
        for model in ("slstm", "tlstm_3d_cn")
        for depth in (1, 7)
        for seed in ((0, 1) if scale == "smoke" else (0,))
    ]
    append(records, directory)
    assert main(["fig4", "--results", str(directory)]) == 0
    return directory, records


def cells(section: str) -> list[list[str]]:
    rows = re.findall(r"^\| (.*) \|$", section, re.MULTILINE)
    return [row.split(" | ") for row in rows]


def test_the_page_has_every_scale_and_a_table_of_eight_columns(drawn):
    directory, _ = drawn
    page = (directory / "fig4" / "README.md").read_text()
    assert "generated by `make figures`, do not edit" in page
    paper, smoke = page.split("## Addition, smoke scale")
    warning = "**Not the paper's size: no reproduction of the paper's numbers.**"
    assert warning in smoke
    assert warning not in paper
    for file in re.findall(r"\]\(([^).]+\.[^)]+)\)", page):
        assert (directory / "fig4" / file).exists(), file
    assert "4 runs, 4.0 device minutes on NVIDIA H200" in paper
    assert "8 runs, 8.0 device minutes on AMD EPYC" in smoke
    assert {len(row) for row in cells(page)} == {8}


def shown_rows(page: str, heading: str) -> list[dict[str, str]]:
    """The rows of the first table below a heading."""
    section = page.split(f"\n{heading}\n")[1].split("\n#")[0].split("<details>")[0]
    header, _, *body = cells(section)
    return [dict(zip(header, row, strict=True)) for row in body]


@pytest.mark.parametrize("task", GENERATED)
def test_a_published_row_is_before_the_measured_one_of_its_depth(drawn, task):
    page = (drawn[0] / "fig4" / "README.md").read_text()
    with PUBLISHED.open() as file:
        (wanted,) = [
            row for row in csv.DictReader(file) if (row["task"], row["depth"]) == (task, "7")
        ]
    paper, smoke = (
        shown_rows(page, f"## {task.capitalize()}, {scale} scale") for scale in ("paper", "smoke")
    )
    names = [(LABELS[model], depth) for model in ("slstm", "tlstm_3d_cn") for depth in ("1", "7")]
    name = f"**{wanted['model']}, published**"
    assert [(row["configuration"], row["L"]) for row in smoke] == names
    assert [(row["configuration"], row["L"]) for row in paper] == [
        *names[:3],
        (name, "7"),
        names[3],
    ]
    (row,) = [row for row in paper if row["configuration"] == name]
    assert (row["test accuracy (%)"], row["samples to 99%"]) == (wanted["value"], wanted["samples"])
    assert {row["seeds"] for row in smoke} == {"0, 1"}


def test_reference_runs_are_drawn_and_get_no_row(results, monkeypatch):
    reading = made_up("paper", "addition", "slstm", 4, 0, experiment="choices")
    same = [
        made_up("paper", "addition", "slstm", 4, 1, experiment=experiment)
        for experiment in ("fig4", "table2", "depth")
    ]
    others = [
        made_up("paper", "addition", "slstm", 7, 0),
        made_up("paper", "addition", "tlstm_2d", 4, 0),
        made_up("paper", "memorization", "slstm", 4, 0),
        made_up("smoke", "addition", "slstm", 4, 0),
    ]
    append([reading, *same, *others], results)
    shown: list[Record] = []

    def figure(records, *_):
        shown.extend(records)
        return Figure()

    usual = figures.EXPERIMENTS["choices"]
    monkeypatch.setitem(figures.EXPERIMENTS, "choices", usual._replace(figure=figure))
    figures.draw("choices", results)
    assert {(r.experiment, r.depth, r.seed) for r in shown} == {
        ("choices", 4, 0),
        ("fig4", 4, 1),
        ("table2", 4, 1),
    }
    table = pd.read_csv(results / "choices" / "runs.csv", dtype={"identifier": str})
    assert table["identifier"].tolist() == [reading.identifier]


def test_a_figure_has_the_further_seeds_of_its_table(results):
    first = made_up("paper", "addition", "slstm", 4, 0)
    more, deeper, other = (
        made_up("paper", "addition", model, depth, 1, experiment="table2")
        for model, depth in (("slstm", 4), ("slstm", 7), ("tlstm_2d", 4))
    )
    append([first, more, deeper, other], results)
    figures.draw("fig4", results)
    table = pd.read_csv(results / "fig4" / "runs.csv", dtype={"identifier": str})
    assert set(table["identifier"]) == {first.identifier, more.identifier}
    (row,) = shown_rows((results / "fig4" / "README.md").read_text(), "## Addition, paper scale")
    assert (row["configuration"], row["seeds"]) == ("sLSTM", "0, 1")
    figures.draw("table2", results)
    table = pd.read_csv(results / "table2" / "runs.csv", dtype={"identifier": str})
    assert set(table["identifier"]) == {deeper.identifier, other.identifier}  # no row twice


def test_runs_csv_has_one_row_per_run(drawn):
    directory, records = drawn
    table = pd.read_csv(directory / "fig4" / "runs.csv", dtype={"identifier": str})
    assert sorted(table["identifier"]) == sorted(record.identifier for record in records)
    by_name = table.set_index("identifier")
    for record in records:
        row = by_name.loc[record.identifier]
        assert row["best_accuracy"] == record.best["accuracy"]
        assert row["milliseconds_per_timestep"] == record.milliseconds_per_timestep


COMMITTED = [*(name for name in figures.COMMANDS if (PUBLISHED.parent / name).exists()), ""]


@pytest.mark.parametrize("experiment", COMMITTED)
def test_committed_pages_and_pictures_are_what_is_drawn(experiment, tmp_path):
    """Those of every experiment and, without one, the front page and the README's table."""
    root, copy = PUBLISHED.parents[1], tmp_path / "results"
    shutil.copytree(root / "results", copy)
    shutil.copy(root / "README.md", tmp_path)
    drawn = [copy / experiment / "README.md"] if experiment else [copy / "README.md"]
    if experiment:
        drawn += [path for path in drawn[0].parent.iterdir() if path.suffix in DRAWN]
        for path in drawn:
            path.unlink(missing_ok=True)
        assert main([experiment, "--results", str(copy)]) == 0
    else:
        assert copy / "README.md" in figures.draw_front(copy)
        drawn.append(tmp_path / "README.md")
    for path in drawn:
        committed = root / path.relative_to(tmp_path)
        assert path.read_bytes() == committed.read_bytes(), path.name


def test_the_readme_has_the_results_between_its_markers(results):
    append(made_up_runs("paper", "memorization", (1, 7, 10), (0, 1)), results)
    readme = results.parent / "README.md"
    readme.write_text("before\n")
    assert figures.draw_front(results) == [results / "README.md"]
    assert readme.read_text() == "before\n"
    readme.write_text(f"before\n{BEGIN}\nstale\n{END}\nafter\n")
    assert figures.draw_front(results) == [results / "README.md", readme]
    text = readme.read_text()
    assert text.startswith(f"before\n{BEGIN}\nOf 8 claims of the paper: holds: ")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "stale" not in text
    _, _, *shown = cells(text)
    assert len(shown) == 14
    front = (results / "README.md").read_text()
    of_table2 = [row for row in shown if "Table 2" in row[0]]
    assert len(of_table2) == 4
    for _, published, measured, compared in of_table2:  # in the front page too
        assert published in front
        assert measured in front
        assert compared in front


def test_drawing_again_changes_no_byte_wherever_it_is_done(results, tmp_path_factory):
    append(made_up_runs("smoke", "memorization", (2,), (0, 1)), results)

    def contents() -> dict[str, bytes]:
        files = (results / "fig4").iterdir()
        return {file.name: file.read_bytes() for file in files if file.suffix != ".lock"}

    assert main(["fig4", "--results", str(results)]) == 0
    before = contents()
    names = {f"smoke-memorization.{kind}" for kind in ("svg", "png")}
    assert set(before) == names | {"records.jsonl", "runs.csv", "README.md"}
    settings = tmp_path_factory.mktemp("settings")
    (settings / "matplotlibrc").write_text("axes.labelsize: 30\nsvg.hashsalt: other\n")
    surroundings = {"MPLCONFIGDIR": str(settings), "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"}
    subprocess.run(
        [sys.executable, "-m", "tlstm.figures", "fig4", "--results", str(results)],
        env=os.environ | surroundings,
        check=True,
        timeout=120,
    )
    assert contents() == before


def test_hardware_in_words():
    many = H200.model_copy(update={"devices": 4})
    single = CPU.model_copy(update={"threads": 1})
    rows = [machine.model_dump() for machine in (H200, many, CPU, single)]
    assert [tables.describe_hardware(row) for row in rows] == [
        "NVIDIA H200",
        "4 x NVIDIA H200",
        "AMD EPYC 9R14 Processor (2 threads)",
        "AMD EPYC 9R14 Processor (1 thread)",
    ]


def test_smoke_is_last_and_the_paper_first():
    scales = ["smoke", "tiny", "short", "paper"]
    assert sorted(scales, key=tables.scale_order) == ["paper", "short", "tiny", "smoke"]


# The command line


def test_without_records_it_says_what_to_run(results, capsys):
    for name, command in (("depth", "python -m tlstm.sweep"), ("runtime", "make bench")):
        assert main([name, "--results", str(results)]) == 2
        message = capsys.readouterr().err
        assert command in message
        assert message.count("\n") == 1
        assert not (results / name).exists()


def test_what_it_cannot_draw_is_one_sentence(results, capsys):
    assert main(["fig9", "--results", str(results)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: EXPERIMENT must be one of fig3, fig4, fig5, table1")
    assert said.endswith("got fig9\n")
    append([make_record(started=STARTED)], results)
    (results / "published.csv").unlink()
    assert main(["--results", str(results)]) == 2
    assert "published.csv: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "{good},1,2,3\n", "{text}", "\x00", '"'])
def test_published_numbers_of_the_wrong_shape_name_their_file(content, results, capsys):
    append([made_up("smoke", "addition", "slstm", 1)], results)
    path = results / "published.csv"
    good = path.read_text()
    path.write_text(content.format(good=good.rstrip(), text=good.replace("298K", "many")))
    for command in (main, report.main):
        assert command(["--results", str(results)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {path} is no table of published numbers: ")
        assert said.count("\n") == 1


def test_a_bad_line_in_one_store_does_not_keep_the_others_from_being_drawn(results, capsys):
    for experiment in ("fig4", "depth", "width"):
        append([made_up("smoke", "addition", "slstm", 2, experiment=experiment)], results)
    with (results / "depth" / "records.jsonl").open("a") as file:
        file.write("{}\n")
    assert main(["--results", str(results)]) == 2
    said = capsys.readouterr()
    assert "fig4/smoke-addition.svg" in said.out
    assert "width/smoke-addition.svg" in said.out
    assert said.err.startswith(f"error: line 2 of {results}/depth/records.jsonl is not a valid")
    assert said.err.endswith("; not drawn: depth, the front page\n")
    assert not (results / "depth" / "README.md").exists()
    page = (results / "width" / "README.md").read_text()
    assert "python -m tlstm.sweep sweeps/width.yaml" in page


def test_lines_that_never_left_chance_are_grey_and_close_ones_smoothed(published):
    """Of single validations that stray, the line shows none; they are behind it, faintly."""
    strayed = [0.3 if number % 20 == 5 else 0.2 for number in range(40)]
    runs = [
        made_up("paper", "addition", "slstm", 1, curve=points([0.154] * 40)),
        made_up("paper", "addition", "tlstm_3d", 1, curve=points(strayed)),
    ]
    panel, _, legend = learning_curves(runs, published).axes
    lines = {line.get_label(): line for line in panel.lines}
    assert lines["sLSTM"].get_color() == GREY
    assert lines["sLSTM"].get_linewidth() < lines["3D tLSTM"].get_linewidth()
    np.testing.assert_allclose(lines["3D tLSTM"].get_ydata(), 20)
    assert {line.get_alpha() for line in panel.lines if "_every" in str(line.get_label())} == {0.35}
    entries = [text.get_text() for text in legend.get_legend().get_texts()]
    assert "never left chance" in entries
    assert panel.get_ylim()[1] < 35  # the axis is of what there is


def test_seeds_that_agree_are_drawn_though_their_mean_is_rounded():
    table = pd.DataFrame({"line": ["3D"] * 3, "depth": [4] * 3, "accuracy": [0.1] * 3})
    assert table["accuracy"].mean() > table["accuracy"].max()
    panel = Figure().add_subplot()
    draw_means(panel, table["accuracy"], table, "depth", {"3D": {"color": "black"}})
    ((_, _, (bar,)),) = panel.containers
    np.testing.assert_allclose(bar.get_segments(), [[[4, 0.1], [4, 0.1]]])
