"""Figure 6: the cells are the oracle's, and the picture shows them where they belong."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import oracle
from commands import load, measure_quickly, run_directory, tiny, train_here
from oracle import Options
from tlstm import figures
from tlstm import memory_cells as command
from tlstm.layers.memory_trajectory import trajectory
from tlstm.records import memory_cells as store
from tlstm.records.schema import read_record, write_record
from tlstm.reporting import memory_cells as drawing
from tlstm.reporting.style import RED
from tlstm.training.config import compose
from tlstm.training.run import make_data
from tlstm.training.trained_run import read_run
from variants import INPUT_SIZE, make_layer, numpy_parameters, random_tensor, variant_id

TIMESTEPS = 6
VARIANTS = [
    Options(rank=2, tensor_size=1),
    Options(rank=2, tensor_size=4, normalization="channel"),
    Options(rank=2, tensor_size=3, kernel_size=2, memory_convolution=False),
    Options(rank=2, tensor_size=5, kernel_size=5),
    Options(rank=3, tensor_size=3, normalization="channel"),
    Options(rank=3, tensor_size=2, kernel_size=2, normalization="layer"),
    Options(rank=4, tensor_size=2),
]


def expected_cells(
    parameters: dict[str, oracle.Array], inputs: oracle.Array, options: Options
) -> oracle.Array:
    """The channel mean at (p,..,p) after every timestep, location by location, [P, T + L − 1]."""
    trace = oracle.run(parameters, inputs[:, None], options, flush=options.depth - 1)
    cells = np.zeros((options.tensor_size, len(trace.cells)))
    for t, cell in enumerate(trace.cells):
        for p in range(1, options.tensor_size + 1):
            place = cell[oracle.at((p,) * options.axes)][0]
            cells[p - 1, t] = sum(place) / len(place)
    return cells


# The cells


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("options", VARIANTS, ids=variant_id)
def test_a_trajectory_is_the_oracles(options: Options, batch_first: bool) -> None:
    layer = make_layer(options, batch_first=batch_first)
    inputs = random_tensor(TIMESTEPS, INPUT_SIZE)
    cells, outputs = trajectory(layer, inputs)
    expected = expected_cells(numpy_parameters(layer), inputs.numpy(), options)
    assert cells.shape == (options.tensor_size, TIMESTEPS + options.depth - 1)
    np.testing.assert_allclose(cells.numpy(), expected, rtol=0, atol=1e-13)
    whole, _ = layer(inputs)
    torch.testing.assert_close(outputs, whole, rtol=0, atol=1e-13)


def test_the_layer_is_left_as_it_was() -> None:
    layer = make_layer(VARIANTS[1])
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    trajectory(layer, random_tensor(TIMESTEPS, INPUT_SIZE))
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


# From a run's checkpoint to the picture


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs on memorization."""
    output_dir = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        measure_quickly(patch)
        for more in (["model=tlstm_2d"], ["model=slstm"], ["model=tlstm_2d", "model.depth=1"]):
            train_here(tiny(output_dir, "experiment=fig4", *more))
    return output_dir


@pytest.fixture
def run(runs: Path) -> Path:
    (directory,) = runs.glob("*/*tlstm_2d-L2*")
    return directory


def stored(results: Path) -> store.MemoryCells:
    (cells,) = store.load(results)
    return cells


def test_what_is_stored_is_the_oracles(runs: Path, run: Path, tmp_path: Path) -> None:
    assert command.main(["--runs", str(runs), "--results", str(tmp_path)]) == 0
    cells = stored(tmp_path)
    sample = make_data(compose(tiny(tmp_path)).config).test_set[0]
    weights = load(run, "best")["state_dict"]
    parameters = {
        name.removeprefix("network.core."): value.double().numpy()
        for name, value in weights.items()
        if name.startswith("network.core.")
    }
    one_hot = np.eye(9)[sample.inputs.numpy()]
    options = Options(rank=2, tensor_size=2)
    expected = expected_cells(parameters, one_hot, options)
    np.testing.assert_allclose(cells.cells, expected, rtol=1e-3, atol=1e-6)

    trace = oracle.run(parameters, one_hot[:, None], options, flush=1)
    head = (weights[f"network.head.{name}"].double().numpy() for name in ("weight", "bias"))
    weight, bias = head
    guesses = (trace.corners[1:, 0] @ weight.T + bias).argmax(-1)
    names = "abcdefgh-"
    asked = sample.loss_mask.tolist()
    assert cells.inputs == [names[token] for token in sample.inputs]
    assert cells.targets == [
        names[t] if a else None for t, a in zip(sample.targets, asked, strict=True)
    ]
    assert cells.outputs == [names[g] if a else None for g, a in zip(guesses, asked, strict=True)]
    assert cells.record == read_record(run / "record.json").model_copy(update={"curve": []})


def text_by_row(panel: Axes) -> dict[float, dict[float, str]]:
    """What is written in a panel: row → timestep → text."""
    rows: dict[float, dict[float, str]] = {}
    for text in panel.texts:
        timestep, row = text.get_position()
        rows.setdefault(row, {})[timestep] = text.get_text()
    return rows


def panels(figure: Figure) -> dict[str, Axes]:
    return dict(zip(["memory", "inputs", "answers", "colours", "image"], figure.axes, strict=False))


def headings(figure: Figure) -> dict[str, Any]:
    return {text.get_text(): text.get_color() for text in figure.texts}


def test_the_picture_is_aligned_with_its_timesteps(run: Path, tmp_path: Path) -> None:
    command.main([str(run), "--results", str(tmp_path)])
    cells = stored(tmp_path)
    drawn = panels(drawing.figure(cells))
    assert set(drawn) == {"memory", "inputs", "answers", "colours"}
    (image,) = drawn["memory"].images
    assert image.get_extent() == [0.5, 8.5, 2.5, 0.5]  # 2·2 + 3 symbols and L − 1; two locations
    np.testing.assert_array_equal(image.get_array(), drawing.scaled(cells.cells))
    assert text_by_row(drawn["inputs"])[0] == dict(enumerate(cells.inputs, start=1))
    assert text_by_row(drawn["answers"]) == {
        row: {4 + 1: names[3], 5 + 1: names[4]}  # the answer to inputs 4 and 5 comes one later
        for row, names in enumerate((cells.targets, cells.outputs))
    }
    for panel in drawn.values():  # the same bytes every time, whatever the layout's last bits
        bounds = panel.get_position(original=True).bounds
        assert [round(place, 6) for place in bounds] == pytest.approx(bounds, abs=1e-12)
    for name in ("inputs", "answers"):
        assert drawn[name].get_xlim() == drawn["memory"].get_xlim() == (0.5, 8.5)


def test_wrong_answers_are_red(run: Path, tmp_path: Path) -> None:
    command.main([str(run), "--results", str(tmp_path)])
    cells = stored(tmp_path)
    wrong = [*cells.targets]
    wrong[3] = "?"
    answers = panels(drawing.figure(cells.model_copy(update={"outputs": wrong})))["answers"]
    colours = {text.get_position(): text.get_color() for text in answers.texts}
    assert (colours[5, 1], colours[6, 1]) == (RED, "black")


def test_an_image_is_shown_as_pixels_and_stand_in_data_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_quickly(monkeypatch)
    overrides = [text for text in tiny(tmp_path / "runs") if not text.startswith("task")]
    train_here([*overrides, "model=tlstm_2d", "task=digits"])
    directory = run_directory(tmp_path / "runs")
    assert command.main([str(directory), "--results", str(tmp_path)]) == 0
    cells = stored(tmp_path)
    sample = make_data(read_run(directory).config).test_set[0]
    np.testing.assert_allclose(cells.inputs, sample.inputs[:, 0], rtol=1e-3)
    assert cells.targets == [None] * 63 + [str(int(sample.targets[-1]))]

    figure = drawing.figure(cells)
    drawn, said = panels(figure), headings(figure)
    (strip,), (image,) = drawn["inputs"].images, drawn["image"].images
    assert strip.get_extent() == [0.5, 64.5, 0.5, -0.5]
    assert drawn["inputs"].get_xlim() == (0.5, 65.5)
    np.testing.assert_array_equal(image.get_array().ravel(), strip.get_array().ravel())
    assert text_by_row(drawn["answers"])[0] == {65: cells.targets[-1]}
    assert said["SMOKE SCALE: not the paper's size"] == RED
    assert said["The data are digits, not mnist"] == RED


def test_a_stream_is_shown_where_it_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty characters of context come first, two chunks of ten of both streams."""
    measure_quickly(monkeypatch)
    text = "A line of text.\n" * 100
    (tmp_path / "text").write_text(text)
    sizes = ["timesteps=10", "evaluation_streams=2", "context=20", "batch_size=2"]
    kept = [o for o in tiny(tmp_path / "runs") if not o.startswith(("task", "training.", "scale."))]
    budget = ["scale=smoke", "training.max_samples=4", "training.samples_per_epoch=4"]
    task = ["task=text_file", "task.text=null", f"task.path={tmp_path / 'text'}"]
    settings = [f"task.{size}" for size in sizes]
    train_here([*kept, *budget, *task, *settings, "model=tlstm_2d"])
    directory = run_directory(tmp_path / "runs")
    (tmp_path / "text").rename(tmp_path / "moved")
    arguments = [str(directory), "--results", str(tmp_path), "--data", str(tmp_path / "moved")]
    assert command.main(arguments) == 0
    cells, first = stored(tmp_path), 1600 - 1600 // 20
    assert cells.sample == 4
    assert "".join(map(str, cells.inputs)) == text[first - 1 : first + 9]
    assert "".join(map(str, cells.targets)) == text[first : first + 10]
    said = headings(drawing.figure(cells))
    assert said["The data are text_file, not wikipedia"] == RED
    assert any("bits per character" in line for line in said)


def test_figures_are_drawn_again_from_what_is_stored(run: Path, tmp_path: Path) -> None:
    command.main([str(run), "--results", str(tmp_path)])
    contents = []
    for _ in range(2):
        assert figures.main(["fig6", "--results", str(tmp_path)]) == 0
        files = sorted((tmp_path / "fig6").iterdir())
        contents.append({file.name: file.read_bytes() for file in files})
    assert contents[0] == contents[1]
    name = "smoke-memorization"
    assert contents[0].keys() == {
        "README.md",
        *(f"{name}.{kind}" for kind in ("json", "png", "svg")),
    }
    page = contents[0]["README.md"].decode()
    assert f"]({name}.svg)" in page
    assert "**SMOKE SCALE: not the paper's size.**" in page
    assert stored(tmp_path).record.label in page


@given(arrays(np.float64, (3, 4), elements=st.floats(-1e6, 1e6)))
def test_a_panel_is_scaled_from_0_to_1(cells: np.ndarray) -> None:
    values = drawing.scaled(cells.tolist())
    if cells.max() == cells.min():
        assert not values.any()
        return
    assert (values.min(), values.max()) == (0, 1)
    order = np.argsort(cells, axis=None)
    assert (np.diff(values.ravel()[order]) >= 0).all()


# Which run


def put(runs: Path, name: str, run: Path, scratch: bool = False, **changes: Any) -> Path:
    """A copy of a run whose record says something else."""
    directory = runs / ("scratch" if scratch else "fig4") / name
    shutil.copytree(run, directory)
    record = read_record(run / "record.json")
    write_record(record.model_copy(update=changes), directory / "record.json")
    return directory


def test_the_best_run_of_each_scale_and_task(runs: Path, run: Path, tmp_path: Path) -> None:
    def best(accuracy: float) -> dict[str, float]:
        return {"accuracy": accuracy, "loss": 1 - accuracy}

    (stack,), (flat,) = runs.glob("*/*slstm*"), runs.glob("*/*tlstm_2d-L1*")
    put(tmp_path, "slow", run, samples_to_threshold=60, best=best(0.999))
    soon = put(tmp_path, "soon", run, samples_to_threshold=30, best=best(0.991))
    put(tmp_path, "never", run, best=best(1.0))
    put(tmp_path, "stack", stack, samples_to_threshold=1)
    put(tmp_path, "one location", flat, samples_to_threshold=1)
    put(tmp_path, "scratch", run, scratch=True, samples_to_threshold=1)
    gone = put(tmp_path, "gone", run, samples_to_threshold=1)
    (gone / "checkpoints" / "best.ckpt").unlink()
    broken = put(tmp_path, "broken", run)
    (broken / "record.json").write_text("{")
    put(tmp_path, "worse", run, task="addition", best=best(0.3))
    better = put(tmp_path, "better", run, task="addition", best=best(0.4))
    by_loss: dict[str, Any] = {"task": "wikipedia", "selected_by": "lowest validation loss"}
    put(tmp_path, "a guess", run, best={"accuracy": 0.9, "loss": 2.0}, **by_loss)
    put(tmp_path, "diverged", run, best={"accuracy": 0.9, "loss": None}, **by_loss)
    sure = put(tmp_path, "sure", run, best={"accuracy": 0.8, "loss": 1.5}, **by_loss)
    other = put(tmp_path, "other", run, scale="paper", best=best(0.1))
    assert command.best_runs(tmp_path) == [other, better, soon, sure]


def test_runs_without_such_a_cell_are_left_out(
    runs: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (stack,) = runs.glob("*/*slstm*")
    unfinished = Path(shutil.copytree(run, tmp_path / "unfinished"))
    (unfinished / "record.json").unlink()
    results = ["--results", str(tmp_path / "results")]
    assert command.main([str(stack), str(unfinished), str(run), *results]) == 1
    stack_line, unfinished_line = capsys.readouterr().err.splitlines()
    assert stack_line == f"error: {stack} is left out: sLSTM has no tensorized memory cell"
    assert unfinished_line == f"error: {unfinished} is left out: the run is not finished"
    assert stored(tmp_path / "results").record.model == "tlstm_2d"
    assert command.main([str(stack), *results]) == 2


def test_without_any_run_it_says_what_makes_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--runs", str(tmp_path)])
    assert ended.value.code == 2
    assert "make reproduce-fig4" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["cells", "inputs", "record", None])
def test_damaged_numbers_are_named(
    key: str | None, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.main([str(run), "--results", str(tmp_path)])
    path = tmp_path / "fig6" / "smoke-memorization.json"
    content = json.loads(path.read_text())
    if key is not None:
        content[key] = content[key][1:] if key == "inputs" else [[1.0]]
    path.write_text(json.dumps(content)[: None if key else 100])
    assert figures.main(["fig6", "--results", str(tmp_path)]) == 2
    assert f"{path} is not a valid picture of memory cells" in capsys.readouterr().err


def test_numbers_that_cannot_be_written_lose_nothing(run: Path, tmp_path: Path) -> None:
    (tmp_path / "fig6").write_text("kept")
    assert command.main([str(run), "--results", str(tmp_path)]) == 2
    assert (tmp_path / "fig6").read_text() == "kept"


def test_the_sizes_of_the_paper_are_readable(run: Path, tmp_path: Path) -> None:
    """50 symbols or 784 pixels, and ten locations: no text is too small, no picture too large."""
    command.main([str(run), "--results", str(tmp_path)])
    cells = stored(tmp_path)
    record = cells.record.model_copy(update={"depth": 10})
    for inputs in (["a"] * 100, [0.5] * 784):
        rows = [[float(t + p) for t in range(len(inputs) + 9)] for p in range(10)]
        answers = [None] * (len(inputs) - 1) + ["a"]
        large = store.MemoryCells(
            record=record,
            commit=None,
            modified=False,
            sample=0,
            inputs=inputs,
            targets=answers,
            outputs=answers,
            cells=rows,
        )
        figure = drawing.figure(large)
        assert figure.get_size_inches()[1] < 8
        sizes = [text.get_fontsize() for panel in figure.axes for text in panel.texts]
        assert min(sizes) >= 6.5
