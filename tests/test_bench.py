"""The benchmark: its cases are the paper's, its numbers are checked, its page is drawn."""

import contextlib
import csv
import functools
import random
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tlstm import figures, results
from tlstm.bench import command, session, timing
from tlstm.bench.accuracy import SEEDS, Reference, relative_error
from tlstm.bench.cases import WIKIPEDIA_CHANNELS, make_case, select_cases
from tlstm.bench.competitors import (
    competitors,
    make_layer,
    matrix_products,
    program,
    reference_program,
)
from tlstm.bench.cuda_graphs import Call, compute
from tlstm.bench.memory import peak_memory
from tlstm.bench.roofline import multiplication_rate, roofline
from tlstm.records.measurement import (
    Case,
    Competitor,
    Errors,
    Measurement,
    Pass,
    Roofline,
    Target,
    Timing,
    append,
    latest,
    load,
    read,
    write,
)
from tlstm.records.models import MODELS, TASKS
from tlstm.records.schema import Hardware
from tlstm.reporting.runtime import groups, requirements
from tlstm.tasks.addition import AdditionTask
from tlstm.tasks.memorization import MemorizationTask
from tlstm.training.config import compose

CPU = torch.device("cpu")
GPU = torch.device("cuda")
DEVICES = [CPU, pytest.param(GPU, marks=pytest.mark.gpu)]
START = datetime(2026, 11, 20, 12, tzinfo=UTC)
H200 = Hardware(device="NVIDIA H200", devices=1, cores=16, threads=8, system="Linux")
PROCESSOR = Hardware(device="AMD EPYC", devices=1, cores=2, threads=2, system="Linux")
SMALL = {"batch_size": 3, "channels": 8, "timesteps": 6}


def small(suite: str = "targets", model: str = "tlstm_2d", depth: int = 3, **changes) -> Case:
    values = SMALL | ({"batch_size": 1, "timesteps": 1} if suite == "step" else {}) | changes
    return make_case(suite, "memorization", model, depth, **values)


def who(implementation: str, precision: str = "float32", cuda_graph: bool = False) -> Competitor:
    return Competitor(implementation=implementation, precision=precision, cuda_graph=cuda_graph)


# The cases


@pytest.mark.parametrize("name", MODELS)
def test_configurations_are_those_of_the_experiments(name: str) -> None:
    core = compose([f"model={name}", "scale=paper"]).config.model.core
    ours = MODELS[name]
    assert ours.label == compose([f"model={name}", "scale=paper"]).config.model.label
    if name == "slstm":
        assert ours.rank == 1
        return
    assert ours.rank == core.rank
    assert ours.kernel_size == core.kernel_size
    assert ours.memory_convolution == core.memory_convolution
    assert ours.normalization == core.normalization


@pytest.mark.parametrize(
    ("name", "layout"), [("addition", AdditionTask(15)), ("memorization", MemorizationTask(20, 64))]
)
def test_tasks_have_the_papers_sizes(name: str, layout) -> None:
    task = compose([f"task={name}", "scale=paper"]).config.task
    sizes = TASKS[name]
    assert sizes.channels == task.channels
    assert (sizes.input_size, sizes.timesteps) == (layout.vocabulary_size, layout.timesteps)
    assert sizes.batch_size == 15


def test_wikipedias_channels_make_ten_million_parameters() -> None:
    """With the output layer, as the paper counts; each within 5% of 10 · 2²⁰."""
    for model, channels in WIKIPEDIA_CHANNELS.items():
        case = make_case("tasks", "wikipedia", model, 4)
        _, inner, columns = case.product
        number = inner * columns + columns + 205 * channels + channels + 205 * channels + 205
        assert number / 2**20 == pytest.approx(10, rel=0.05), model


def test_targets_have_the_matrix_products_of_the_design() -> None:
    found = [case.product for case in select_cases(("targets",), (), 50, False)]
    assert found == [
        (250, 300, 403),
        (1250, 900, 409),
        (150, 1200, 1603),
        (735, 3600, 1609),
        (1500, 900, 409),
        (400, 2703, 3607),
        (1600, 4698, 2097),
        (3600, 10800, 4809),
    ]


def test_quick_leaves_large_cases_out_and_shortens_the_others() -> None:
    cases = select_cases(("targets",), (), None, True)
    assert {case.timesteps for case in cases} == {10}
    assert {case.timesteps for case in select_cases(("all",), (), 3, True)} == {3, 1}
    assert [case.channels for case in cases] == [100, 100, 400, 100]


def test_cases_are_chosen_by_name() -> None:
    (case,) = select_cases(("targets",), ("addition-*_cn",), 50, False)
    assert case.name == "addition-tlstm_3d_cn-L7-M400"
    with pytest.raises(ValueError, match=r"--case matches none of .*mnist-tlstm_2d-L5.*nothing"):
        select_cases(("targets",), ("nothing",), 50, False)


@pytest.mark.parametrize("model", ["tlstm_2d_no_memory_convolution", "tlstm_2d_no_feedback"])
def test_operations_are_those_that_torch_counts(model: str) -> None:
    """Beside the projection and, with memory convolution, its own small products."""
    case = small(model=model)
    layer = make_layer(case, "autograd", CPU)
    x = torch.randn(case.timesteps, case.batch_size, case.input_size)
    with FlopCounterMode(display=False) as counter:
        layer(x, stream=True)
    counted = counter.get_total_flops()
    rows, taps = case.batch_size * case.tensor_size, case.kernel_size
    more = 2 * case.batch_size * case.input_size * case.channels
    more += 2 * rows * taps * case.channels if case.memory_convolution else 0
    assert counted == case.timesteps * (case.operations + more)


# Competitors


@pytest.mark.parametrize("model", ["tlstm_2d", "tlstm_3d_cn"])
@pytest.mark.parametrize("implementation", ["pytorch", "autograd"])
def test_programs_agree_with_float64(model: str, implementation: str) -> None:
    case = small(model=model)
    expected = Reference(case, CPU)
    errors = expected.errors(program(case, who(implementation), CPU))
    assert errors.output < 1e-6
    assert errors.gradient < 1e-5


def test_the_compiled_cell_agrees_with_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced, with a backward pass of its own, but with no C++ compiler."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    case = small(model="tlstm_3d_cn")
    errors = Reference(case, CPU).errors(program(case, who("torch.compile"), CPU))
    assert errors.output < 1e-6
    assert errors.gradient < 1e-5


def test_errors_show_a_wrong_weight() -> None:
    case = small()
    made = program(case, who("pytorch"), CPU)
    with torch.no_grad():
        made.parameters["bias_hidden"][0] += 0.01
    errors = Reference(case, CPU).errors(made)
    assert errors.output > 1e-4
    assert errors.worst in made.parameters


@pytest.mark.parametrize("wrong", range(len(SEEDS)))
def test_errors_are_of_all_draws_together(wrong: int) -> None:
    """With the output of one draw a tenth too large, whichever it is."""
    case = small()
    made, exact = program(case, who("pytorch"), CPU), reference_program(case, CPU)
    sizes: list[float] = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        factor = 1.1 if len(sizes) == wrong else 1.0
        sizes.append(float(exact.forward(x.double()).detach().square().sum()))
        return factor * made.forward(x)

    errors = Reference(case, CPU).errors(made._replace(forward=forward))
    assert len(set(sizes)) == len(SEEDS)
    assert errors.output == pytest.approx(0.1 * (sizes[wrong] / sum(sizes)) ** 0.5, rel=1e-4)
    assert 0.01 < errors.gradient < 0.1
    assert errors.timesteps == case.depth - 1 + 10


def test_relative_error() -> None:
    expected = torch.tensor([3.0, 4.0], dtype=torch.float64)
    zero, close = torch.zeros(1, dtype=torch.float64), torch.tensor([3.0, 4.5])
    assert relative_error([close], [expected]) == pytest.approx(0.1)
    assert relative_error([close, zero.float()], [expected, zero]) == pytest.approx(0.1)
    assert relative_error([torch.tensor([0.5])], [zero]) == 0.5
    with pytest.raises(ValueError, match="not finite"):
        relative_error([close, torch.tensor([float("nan"), 4.0])], [expected, expected])


def test_nn_lstm_has_as_many_layers_and_channels() -> None:
    case = small(depth=3)
    made = program(case, who("nn.LSTM"), CPU)
    assert sum(name.startswith("stack.weight_hh") for name in made.parameters) == 3
    x = torch.randn(case.timesteps, case.batch_size, case.input_size)
    cotangent = torch.randn(case.timesteps, case.batch_size, case.channels)
    output, *gradients = compute(made, "training", x, cotangent)
    assert output.shape == cotangent.shape
    assert [g.shape for g in gradients] == [p.shape for p in made.parameters.values()]
    assert all(g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize("implementation", ["pytorch", "autograd"])
def test_single_steps_go_on_from_each_other(implementation: str) -> None:
    case = small("step", depth=2)
    made = program(case, who(implementation), CPU)
    x = torch.randn(4, 1, case.input_size)
    with torch.no_grad():
        found = torch.stack([made.forward(step) for step in x])
        expected, _ = make_layer(case, "autograd", CPU)(x, stream=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_stacked_cells_are_nn_lstm() -> None:
    """The same weights in nn.LSTM give the same outputs, step by step."""
    case = small("step", depth=2)
    made = program(case, who("nn.LSTMCell"), CPU)
    stack = torch.nn.LSTM(case.channels, case.channels, 2)
    with torch.no_grad():
        for name, parameter in made.parameters.items():
            layer, kind = name.split(".")
            getattr(stack, f"{kind}_l{layer}").copy_(parameter)
    torch.manual_seed(0)  # as the projection was drawn
    project = torch.nn.Linear(case.input_size, case.channels)
    x = torch.randn(5, 1, case.input_size)
    with torch.no_grad():
        found = torch.stack([made.forward(step) for step in x])
        expected, _ = stack(project(x))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", [CPU, GPU])
def test_every_case_has_competitors_that_can_be_compared(device: torch.device) -> None:
    for case in select_cases(("all",), (), 50, False):
        found = competitors(case, device)
        names = {each.implementation for each in found}
        assert len({each.name for each in found}) == len(found)
        if case.is_stack:
            assert names == {"nn.LSTM"}
        else:
            assert {"autograd", "pytorch" if device == CPU else "triton"} <= names
        assert device == GPU or not any(each.cuda_graph for each in found)


def test_precisions_hold_for_as_long_as_they_are_asked_for() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with matrix_products("float32"):
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
    with contextlib.suppress(ZeroDivisionError), matrix_products("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
        raise ZeroDivisionError
    assert before == (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)


# Measuring


def test_time_is_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that each call turns on by two seconds."""
    calls: list[None] = []
    monkeypatch.setattr(time, "perf_counter", lambda: 2.0 * len(calls))
    assert timing.time_calls(lambda: calls.append(None), 3, CPU) == 2


def test_rounds_spend_the_seconds_and_call_slow_things_seldom() -> None:
    assert timing.calls_in_round(1.0, 0.3, 0) == 1
    assert timing.calls_in_round(1.0, 0.3, timing.MIN_ROUNDS) == 0
    calls = timing.calls_in_round(20e-6, 0.3, timing.MIN_ROUNDS)
    assert calls * 20e-6 * timing.ROUNDS == pytest.approx(0.3)


@pytest.mark.parametrize("broken", ["build", "turn"])
def test_who_fails_is_recorded_and_the_others_are_measured(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(case: Case, competitor: Competitor, device: torch.device):
        made = program(case, competitor, device)
        calls = iter(range(100))

        def forward(x: torch.Tensor) -> torch.Tensor:
            if next(calls) == 20:
                raise RuntimeError
            return made.forward(x)

        if competitor.implementation != "autograd":
            return made
        if broken == "build":
            raise torch.OutOfMemoryError("CUDA out of memory.\nMore lines")
        return made._replace(forward=forward)

    monkeypatch.setattr(timing, "program", failing)
    case = small()
    told: list[str] = []
    failed, other = timing.measure(case, [who("autograd"), who("pytorch")], CPU, 0.01, told.append)
    reasons = {
        "build": "OutOfMemoryError: CUDA out of memory.",
        "turn": "RuntimeError: no reason given",
    }
    assert failed.failure == reasons[broken]
    assert failed.result("training", case).timing is None
    assert other.failure is None
    for kind in timing.kinds(case):
        found = other.result(kind, case)
        assert found.timing.repeats >= timing.MIN_ROUNDS
        assert found.first_call_seconds > 0
    assert min(other.samples["training"]) > min(other.samples["forward"])
    assert other.errors is not None
    assert not other.calls, "memory is freed"
    assert told[-1] == "timing in turns"


def test_a_lost_device_ends_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(timing, "program", fail)
    monkeypatch.setattr(timing, "free_memory", fail)
    with pytest.raises(timing.DeviceLostError, match="after pytorch, float32: RuntimeError: CUDA"):
        timing.measure(small(), [who("pytorch")], CPU, 0.01, print)


def test_the_roofline_is_the_arithmetic() -> None:
    case = small()
    found = roofline(case, 1e9, CPU, with_products=True)
    assert found.training == pytest.approx(3 * 1e6 * case.operations / 1e9)
    assert found.products is not None
    assert 1e8 < multiplication_rate(CPU) < 1e14


@pytest.mark.parametrize("device", DEVICES)
def test_peak_memory_is_what_is_there_at_once(device: torch.device) -> None:
    mebibytes = 64 * 2**20

    def twice_one_after_the_other_then_both() -> None:
        torch.ones(mebibytes // 4, device=device)
        _ = torch.ones(mebibytes // 4, device=device), torch.ones(mebibytes // 8, device=device)

    twice_one_after_the_other_then_both()
    found = peak_memory(twice_one_after_the_other_then_both, device)
    if found is None:
        pytest.skip("this system does not tell a process's peak")
    assert found == pytest.approx(1.5 * mebibytes, rel=0.1)


# Records


def make_timing(microseconds: float, number: int = 9) -> Timing:
    chance = random.Random(microseconds)
    return Timing.of([1e-6 * microseconds * chance.uniform(0.98, 1.02) for _ in range(number)], 1)


def make_measurement(case: Case, competitor: Competitor, microseconds: float | None, **changes):
    found = Pass(
        timing=microseconds and make_timing(microseconds), peak_memory=2**20, first_call_seconds=1
    )
    values = {
        "run": START,
        "quick": False,
        "case": case,
        "competitor": competitor,
        "forward": found,
        "training": None if case.suite == "step" else found,
        "errors": None,
        "roofline": Roofline(
            operations=case.operations, rate=8e14, rate_precision="bfloat16", products=9
        ),
        "failure": None if microseconds else "OutOfMemoryError: CUDA out of memory.",
        "measured": START,
        "commit": "f" * 40,
        "modified": False,
        "versions": {"torch": "2.11.0"},
        "hardware": H200,
    }
    return Measurement(**values | changes)


def everything(**changes) -> list[Measurement]:
    """What a GPU might have given, without the slower half of the competitors."""
    speeds = {"triton": 10, "pytorch": 60, "autograd": 400, "torch.compile": 150}
    return [
        make_measurement(
            case,
            each,
            speeds.get(each.implementation, 9 * case.depth) * (1 if each.cuda_graph else 4),
            **changes,
        )
        for case in select_cases(("all",), (), 50, False)
        for each in competitors(case, GPU)
    ]


def test_timing_has_median_and_quartiles() -> None:
    seconds = [5e-4, 1e-4, 2e-4, 4e-4, 3.5e-4, 8e-4]
    found = Timing.of(seconds, timesteps=10)
    low, middle, high = np.percentile(np.array(seconds) * 1e5, [25, 50, 75])
    assert (found.median, *found.quartiles) == pytest.approx((middle, low, high))
    assert found.repeats == 6
    assert found.microseconds[0] == pytest.approx(50)
    assert Timing.of([1e-3], 1).quartiles == (1000, 1000)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"format": 2}', "is not a valid measurement: run: Field"),
        ('{"format": 1}', "of another version, not in format 2: measure again"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: str, sentence: str) -> None:
    path = tmp_path / "runtime.jsonl"
    write(everything()[:1], path)
    path.write_text(path.read_text(encoding="utf-8") + line, encoding="utf-8")
    with pytest.raises(ValueError, match=f"line 2 of .*runtime.jsonl .*{sentence}"):
        read(path)


def test_the_last_run_of_every_case_is_shown() -> None:
    first, second = everything()[:2]
    again = first.model_copy(update={"run": START + timedelta(hours=1)})
    other = second.model_copy(update={"hardware": PROCESSOR})
    assert latest([again, first, second, other]) == [again, other]


def test_files_and_directories_are_collected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = everything()[:4]
    runs, store = tmp_path / "runs", str(tmp_path / "results")
    write(found[:3], runs / "runtime" / "one.jsonl")
    write(found, tmp_path / "brought.jsonl")
    collect = ["collect", "--results", store]
    assert results.main([*collect, "--runs", str(runs), "runtime"]) == 0
    assert "runtime: 3 records, 3 of them new" in capsys.readouterr().out
    assert results.main([*collect, "--runs", str(tmp_path / "brought.jsonl")]) == 0
    assert "runtime: 4 records, 1 of them new" in capsys.readouterr().out
    assert load(tmp_path / "results") == found
    assert results.main([*collect, "--runs", str(tmp_path / "none"), "runtime"]) == 2
    assert "holds no record of runtime" in capsys.readouterr().err


# What they say


def on_processor(measurement: Measurement, **changes) -> Measurement:
    found = measurement.roofline.model_copy(update={"rate": 1e11, "rate_precision": "float32"})
    return measurement.model_copy(update={"hardware": PROCESSOR, "roofline": found, **changes})


def judge(measurements: list[Measurement]) -> dict[str, tuple[str, str]]:
    """Return cases and cases that hold by requirement."""
    rows = requirements(groups(measurements))
    return {row["requirement"]: (row["cases"], row["hold"]) for row in rows}


AUTOGRAD = (
    "time at most 1/10 of autograd's in a CUDA graph where at most 25 µs are required, else 1/3"
)


@pytest.mark.parametrize(
    ("ours", "autograd", "required", "hold"),
    [(15, 200, 20, "101"), (25, 240, 20, "000"), (9, 80, 20, "110"), (25, 90, 80, "101")],
)
def test_targets_are_judged(ours: float, autograd: float, required: float, hold: str) -> None:
    """By the time required, by the goal of 10 µs, and by autograd in a graph, not called."""
    case = small().model_copy(update={"target": Target(required=required, goal=10)})
    found = [
        make_measurement(case, who("triton", "bfloat16", True), ours),
        make_measurement(case, who("autograd", "bfloat16", True), autograd),
        make_measurement(case, who("autograd", "bfloat16"), 10 * autograd),
    ]
    names = "time at most the required one", "goal: time at most that of the goal", AUTOGRAD
    assert judge(found) == {name: ("1", each) for name, each in zip(names, hold, strict=True)}
    others = judge([on_processor(each) for each in found])
    assert names[0] not in others, "a target is for its machine"


@pytest.mark.parametrize(
    ("precision", "size", "autograd", "hold"),
    [("bfloat16", 1e-2, 6e-3, "1"), ("float32", 3e-5, 1e-5, "0")],
)
def test_errors_are_judged(precision: str, size: float, autograd: float, hold: str) -> None:
    def with_errors(implementation: str, size: float) -> Measurement:
        errors = Errors(timesteps=10, output=size / 2, gradient=size, worst="weight_hidden")
        return make_measurement(small(), who(implementation, precision), 10, errors=errors)

    limit = {"bfloat16": "0.02", "float32": "1e-05"}[precision]
    assert judge([with_errors("triton", size), with_errors("autograd", autograd)]) == {
        f"errors at most {limit} in {precision}": ("1", hold),
        "errors at most 2 × autograd's": ("1", hold),
    }


@pytest.mark.parametrize(("slope", "hold"), [(0.1, "1"), (0.5, "0")])
def test_depth_is_judged_over_the_tensor_size(slope: float, hold: str) -> None:
    cases = [case for case in select_cases(("size",), (), 50, False) if case.channels == 100]
    ours = who("triton", "bfloat16", True)
    found = [make_measurement(case, ours, 10 + slope * case.tensor_size) for case in cases]
    assert judge(found)["time at P = 10 at most 1.3 × that at P = 1"] == ("1", hold)


@pytest.mark.parametrize(("microseconds", "hold"), [(1900, "1"), (2100, "0")])
def test_processors_are_judged_by_time_and_memory(microseconds: float, hold: str) -> None:
    (case,) = select_cases(("targets",), ("mnist-tlstm_2d-*",), 10, True)
    plain = on_processor(make_measurement(case, who("autograd"), 3000))
    ours = on_processor(make_measurement(case, who("pytorch"), microseconds))
    found = judge([ours, plain])
    assert found["MNIST 1.5 × as fast as autograd"] == ("1", hold)
    assert found["never slower than autograd"] == ("1", "1")
    assert found["at most 0.5 × the memory of autograd"] == ("1", "0")


def test_a_stack_has_another_roofline_than_a_tensor() -> None:
    case = small()
    assert make_measurement(case, who("nn.LSTM"), 10).roofline_share is None
    ours = make_measurement(case, who("triton"), 10)
    assert ours.roofline_share == pytest.approx(ours.roofline.training / ours.microseconds)
    assert ours.tokens_per_second == pytest.approx(case.batch_size / (ours.microseconds * 1e-6))


def test_page_pictures_and_table_are_drawn_and_the_same_again(tmp_path: Path) -> None:
    few = {"targets": "mnist", "tasks": "mnist", "size": "memorization", "step": "mnist"}
    cases = [m for m in everything() if m.case.task == few[m.case.suite]]
    failed = make_measurement(small(), who("torch.compile", cuda_graph=True), None)
    quick = [on_processor(m, quick=True) for m in cases if m.case.suite == "targets"]
    append([*cases, failed, *quick], tmp_path)
    assert figures.main(["runtime", "--results", str(tmp_path)]) == 0
    directory = tmp_path / "runtime"
    first = {path.name: path.read_bytes() for path in directory.iterdir()}
    names = {f"nvidia-h200-{suite}" for suite in ("targets", "tasks", "size")}
    for name in {*names, "amd-epyc-quick-targets"}:
        assert {f"{name}.svg", f"{name}.png"} <= set(first)
    text = first["README.md"].decode()
    assert text.index("## NVIDIA H200") < text.index("## AMD EPYC, quick")
    assert "**Measured quickly: sequences of a few timesteps" in text
    assert "OutOfMemoryError: CUDA out of memory." in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert max(line.count(" | ") for line in tables) == 7, "eight columns"
    rows = list(csv.DictReader(first["measurements.csv"].decode().splitlines()))
    assert len(rows) == len(cases) + 1 + len(quick)
    figures.main(["runtime", "--results", str(tmp_path)])
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == first


# The command


def run(arguments: list[str], output: Path) -> int:
    common = ["--seconds", "0.001", "--device", "cpu", "--output", str(output)]
    return command.main([*common, *arguments])


def test_the_command_measures_records_and_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the lines that its file holds, which stay in it."""
    output, earlier = tmp_path / "runtime.jsonl", everything()[:3]
    write(earlier, output)
    assert run(["--suite", "step", "--case", "mnist-tlstm_2d-*"], output) == 0
    assert read(output)[:3] == earlier
    found = read(output)[3:]
    assert [each.competitor.implementation for each in found] == [
        "pytorch",
        "autograd",
        "nn.LSTMCell",
    ]
    assert all(each.microseconds > 0 and each.quick for each in found)
    said = capsys.readouterr().out
    assert re.search(r"\d (s|min|h) to [\d.]+ (s|min|h)\. QUICK", said)
    assert "3 measurements, 0 of them failed" in said


def test_kernels_are_recorded_of_the_same_computation(tmp_path: Path) -> None:
    """With and without a CUDA graph, and after the lines that a file holds."""
    case, output = small(), tmp_path / "runtime.jsonl"
    write(everything()[:1], output)
    recorder = session.Recorder(output, START, True, CPU)
    found = roofline(case, 1e11, CPU, with_products=False)
    ones = [who("triton", "bfloat16"), who("triton", "bfloat16", True), who("triton", "tf32", True)]
    for one in ones:
        entry = timing.Entry(one)
        entry.samples["forward"] = entry.samples["training"] = [0.1]
        recorder.add(case, entry, found)
    recorder.add_kernels(recorder.measurements[0], {"forward": 1.5, "training": 4})
    earlier, *new = read(output)
    assert [earlier] == everything()[:1]
    assert [each.training.kernels for each in new] == [4, 4, None]
    assert [each.forward.kernels for each in new] == [1.5, 1.5, None]


def test_dry_run_measures_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--dry-run"], tmp_path / "runtime.jsonl") == 0
    assert not list(tmp_path.iterdir())
    assert "cases" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--case", "nothing"], "--case matches none of"),
        (["--implementation", "triton"], "none of the chosen competitors computes"),
        (["--suite", "targets", "--case", "M1200"], "too large to be measured quickly"),
        (["--timesteps", "0"], "must be 1 or more, got 0"),
        *((["--seconds", n], f"above 0 and at most 3600, got {n}") for n in ("nan", "inf", "-1")),
        (["--device", "tpu"], "--device must be cpu or cuda, got tpu"),
        (["--device", "meta"], "--device must be cpu or cuda, got meta"),
        (["--suite", "step"], "line 1 of"),
    ],
)
def test_refusals(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of a file of something else, which stays."""
    output = tmp_path / "notes.jsonl"
    output.write_text("mine\n", encoding="utf-8")
    with pytest.raises(SystemExit) as refused:
        run(arguments, output)
    assert refused.value.code == 2
    assert sentence in capsys.readouterr().err
    assert output.read_text(encoding="utf-8") == "mine\n"


@pytest.mark.slow
def test_the_benchmark_needs_neither_pictures_nor_tables() -> None:
    missing = ["matplotlib", "pandas", "lightning", "hydra", "jinja2", "wandb"]
    code = f"""
import sys
for name in {missing}: sys.modules[name] = None
from tlstm.bench.command import main
sys.exit(main(["--dry-run", "--device", "cpu"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_pages_and_pictures_need_no_torch() -> None:
    code = "import sys, tlstm.figures, tlstm.results; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# On a GPU


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("implementation", ["triton", "pytorch", "autograd", "nn.LSTM"])
def test_a_call_computes_its_input(implementation: str, device: torch.device) -> None:
    """On a GPU the replay of a CUDA graph, on a processor the pass itself."""
    if implementation == "triton" and device == CPU:
        pytest.skip("needs a GPU")
    made = program(small(), who(implementation), device)
    x, other = (torch.randn(6, 3, 65, device=device) for _ in range(2))
    cotangent = torch.randn(6, 3, 8, device=device)
    given: list[torch.Tensor] = []

    def run(x: torch.Tensor) -> list[torch.Tensor]:
        given[:] = compute(made, "training", x, cotangent)
        return given

    one = Call(run, x, cuda_graph=device == GPU)
    one.load(other)
    one()
    expected = compute(made, "training", other, cotangent)
    for found, wanted in zip(given, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
def test_kernels_are_counted() -> None:
    x = torch.randn(1000, device=GPU)
    assert timing.count_kernels(lambda: x.tanh().sin().cos()) == 3


@pytest.mark.gpu
def test_the_command_measures_on_a_gpu(tmp_path: Path) -> None:
    output = tmp_path / "runtime.jsonl"
    arguments = ["--suite", "targets", "step", "--case", "mnist-tlstm_2d", "--timesteps", "5"]
    command.main([*arguments, "--seconds", "0.01", "--output", str(output)])
    found = read(output)
    assert {each.failure for each in found} == {None}
    assert all(each.microseconds > 0 for each in found)
    assert {each.competitor.implementation for each in found if each.main.kernels} == {
        each.competitor.implementation for each in found
    }
