"""Sweep files, and running them here with no server."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import jsonschema
import pytest
import yaml
from rich.console import Console

from commands import processes_in, start_process, wait_until
from tlstm import sweep
from tlstm.records.models import MODELS
from tlstm.records.schema import read_record
from tlstm.sweeping import display as sweep_display
from tlstm.sweeping import estimates, gpus, grid, pool
from tlstm.sweeping.display import RunRow, SweepDisplay, Throughput
from tlstm.sweeping.grid import SWEEPS as FOLDER
from tlstm.sweeping.grid import at_scale, is_of_repository, points, read_runs, read_sweep_file
from tlstm.training import cores
from tlstm.training.config import Run, compose
from tlstm.training.display import Status

SWEEPS = sorted(FOLDER.rglob("*.yaml"))
# Of the package sweeps 0.3.0, which W&B checks sweep files with
SCHEMA = json.loads(Path(__file__).with_name("wandb_sweep_schema.json").read_text(encoding="utf-8"))
COMMAND = ["${env}", "${interpreter}", "-m", "${program}", "${args_no_hyphens}"]
TINY = [
    "scale=smoke",
    "task.symbols=3",
    "task.alphabet=4",
    "model.channels=4",
    "training.max_samples=60",
    "training.samples_per_epoch=30",
    "training.batch_size=15",
    "task.validation_samples=20",
    "task.test_samples=20",
    "logger=csv",
]


def write_sweep(path: Path, run_cap: int | None = None, **parameters: list | str | dict) -> Path:
    """Write a sweep file: of a grid, or of a random search where it has a cap."""
    kinds = {list: "values", str: "value", int: "value"}
    given = {k: v if isinstance(v, dict) else {kinds[type(v)]: v} for k, v in parameters.items()}
    method = {"method": "random", "run_cap": run_cap} if run_cap else {"method": "grid"}
    content = {"program": "tlstm.train", **method, "parameters": given, "command": COMMAND}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def run_sweep(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tlstm.sweep", *arguments],
        cwd=cwd,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )


@cache
def runs_of(path: Path, scale: str) -> list[Run]:
    """The runs of a sweep file, composed once for all tests."""
    return read_runs(path, [f"scale={scale}"])


@pytest.mark.parametrize(
    ("path", "scale"),
    [
        pytest.param(path, scale, marks=[] if path.parent == FOLDER else pytest.mark.slow)
        for path in SWEEPS
        for scale in ("smoke", "paper")
    ],
)
def test_every_point_of_every_sweep_file_composes(path: Path, scale: str) -> None:
    runs = runs_of(path, scale)
    assert len({run.identifier for run in runs}) == len(runs) >= 1


@pytest.mark.parametrize(
    ("path", "scale"),
    [
        (path, scale)
        for path in SWEEPS
        for scale in ("smoke", "short", "paper")
        if path.parent != FOLDER or scale == "short"
    ],
)
def test_every_value_of_every_sweep_file_composes(path: Path, scale: str) -> None:
    """In the first point that has it; an agent of W&B passes the same command line to train."""
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), SCHEMA)
    file = at_scale(read_sweep_file(path), [f"scale={scale}"])
    assert (file.program, file.command) == ("tlstm.train", COMMAND)
    composed: set[str] = set()
    for point in points(file, [f"scale={scale}"]):
        if not composed.issuperset(point):
            compose(point)
            composed.update(point)


@pytest.mark.parametrize("scale", ["smoke", "paper"])
@pytest.mark.parametrize(
    ("figure", "table"), [("fig3", "table1"), ("fig4", "table2"), ("fig5", "table3")]
)
def test_a_table_trains_nothing_that_its_figure_has(figure: str, table: str, scale: str) -> None:
    identifiers = {
        name: {
            run.identifier for path in FOLDER.glob(f"{name}*.yaml") for run in runs_of(path, scale)
        }
        for name in (figure, table)
    }
    assert identifiers[figure]
    assert identifiers[table]
    assert not identifiers[figure] & identifiers[table]


def test_the_ablation_has_every_combination_under_its_own_name() -> None:
    runs = runs_of(FOLDER / "ablation.yaml", "paper")
    names = [run.config.model.label for run in runs]
    assert sorted(names) == sorted(
        f"{rank}D tLSTM{feedback}{memory}{norm}"
        for rank in (2, 3)
        for feedback in ("", "–F")
        for memory in ("", "–M")
        for norm in ("", "+LN", "+CN")
    )


def test_a_scale_changes_the_values_of_this_repositorys_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One's own run as they are, also where they lie beside these."""
    assert all(is_of_repository(path, read_sweep_file(path)) for path in SWEEPS)
    file = read_sweep_file(FOLDER / "fig5-mnist.yaml")
    assert at_scale(file, ["scale=smoke"]).parameters["model.depth"].values == [1, 2, 3]
    assert at_scale(file, ["scale=paper"]).parameters["model.depth"].values == [1, 3, 5]
    own = write_sweep(tmp_path / "own.yaml", experiment="depth", **{"model.depth": [1, 3, 5]})
    for place in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.setattr(grid, "SWEEPS", place)
        runs = read_runs(own, ["scale=smoke"])
        assert [run.config.model.depth for run in runs] == [1, 3, 5]


@pytest.mark.parametrize("task", ["addition", "memorization"])
def test_figure_4_is_seven_configurations_at_four_depths(task: str) -> None:
    file = read_sweep_file(FOLDER / f"fig4-{task}.yaml")
    choices = {key: parameter.choices for key, parameter in file.parameters.items()}
    assert (choices["task"], choices["experiment"]) == ([task], ["fig4"])
    assert set(choices["model"]) == set(MODELS)
    assert choices["model.depth"] == [1, 4, 7, 10]
    assert len(points(file, [])) == 28
    assert len(points(at_scale(file, ["scale=smoke"]), [])) == 21


def test_grid_is_the_product_of_all_values_and_command_line_wins(tmp_path: Path) -> None:
    depths = {"model.depth": [1, 2, 3]}
    path = write_sweep(tmp_path / "s.yaml", task="addition", model=["a", "b"], **depths)
    file = read_sweep_file(path)
    assert points(file, []) == [
        ["task=addition", f"model={model}", f"model.depth={depth}"]
        for model in "ab"
        for depth in (1, 2, 3)
    ]
    given = ["task=memorization", "model=a", "model.depth=5", "seed=3"]
    assert points(file, given) == [given]
    assert len(points(file, ["model.depth=5"])) == 2
    assert points(file.model_copy(update={"run_cap": 2}), []) == points(file, [])[:2]


# Random search, as W&B means it

SEARCH: dict[str, list | str | dict] = {
    "task": "memorization",
    "model": ["tlstm_2d", "tlstm_3d_cn"],
    "model.depth": {"min": 2, "max": 4},
    "training.learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
    "training.gradient_clip": {"min": 0.5, "max": 1.5},
    "training.max_samples": {"distribution": "q_uniform", "min": 1000, "max": 9000, "q": 1000},
}


def test_random_points_have_the_distributions_of_the_file(tmp_path: Path) -> None:
    """The bounds, and shares that chance leaves within five standard deviations."""
    file = read_sweep_file(write_sweep(tmp_path / "s.yaml", run_cap=4000, **SEARCH))
    drawn = [dict(text.split("=") for text in point) for point in points(file, [])]
    columns = {key: [point[key] for point in drawn] for key in SEARCH}
    assert set(columns["task"]) == {"memorization"}
    assert set(columns["model.depth"]) == {"2", "3", "4"}
    samples = columns["training.max_samples"]
    assert set(samples) == {str(number) for number in range(1000, 9001, 1000)}
    rates = [float(text) for text in columns["training.learning_rate"]]
    assert 1e-4 <= min(rates) < 1.1e-4
    assert 0.9e-2 < max(rates) <= 1e-2
    clips = [float(text) for text in columns["training.gradient_clip"]]
    assert 0.5 <= min(clips) < max(clips) <= 1.5
    for share, expected in (
        (sum(model == "tlstm_2d" for model in columns["model"]), 1 / 2),
        *((columns["model.depth"].count(depth), 1 / 3) for depth in "234"),
        (sum(rate < 1e-3 for rate in rates), 1 / 2),
        (sum(clip < 0.75 for clip in clips), 1 / 4),
        (samples.count("1000"), 1 / 16),  # half as wide as the others
        (samples.count("2000"), 1 / 8),
    ):
        assert share / 4000 == pytest.approx(expected, abs=5 * (expected / 4000) ** 0.5)


def test_random_points_are_a_function_of_the_parameters_alone(tmp_path: Path) -> None:
    few, many = (
        read_sweep_file(write_sweep(tmp_path / f"{cap}.yaml", run_cap=cap, **SEARCH))
        for cap in (3, 8)
    )
    assert points(few, []) == points(many, [])[:3]
    fixed = [point[:-1] for point in points(many, ["model=srnn"])]
    assert fixed == [[text for text in p if "model=" not in text] for p in points(many, [])]
    other = many.model_copy(
        update={"parameters": few.parameters | {"seed": few.parameters["task"]}}
    )
    assert [point[:-1] for point in points(other, [])] != points(many, [])


def test_the_example_of_the_readme_is_a_random_search(tmp_path: Path) -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    path = tmp_path / "example.yaml"
    path.write_text(example)
    jsonschema.validate(yaml.safe_load(example), SCHEMA)
    runs = read_runs(path, ["scale=smoke"])
    assert len({run.identifier for run in runs}) == 20
    assert {run.config.model.depth for run in runs} <= set(range(2, 11))


def content(parameters: str, method: str = "grid") -> str:
    return f"{{program: p, method: {method}, parameters: {{{parameters}}}, command: [c]}}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("method: grid", "program"),
        ("[1, 2", "not YAML"),
        (content("a: {value: 1}", "bayes"), "method: Input should be 'grid' or 'random'"),
        (content("a: {value: 1}", "random"), "method: random needs run_cap"),
        (content("a: {value: 1, values: [2]}"), "must have either value or values"),
        (content("a: {min: 1, max: 2}"), "parameters.a: a grid takes values and no range"),
        (content("a: {min: 2, max: 1}"), "min must be at most max"),
        (content("a: {min: 2}"), "min must be at most max"),
        (content("a: {min: .nan, max: 1}"), "parameters.a.min"),
        (content("a: {min: 0, max: 1, distribution: log_uniform_values}"), "must be above 0"),
        (content("a: {min: 0, max: 1.5, distribution: int_uniform}"), "takes integers"),
        (content("a: {min: 0, max: 1, q: 2}"), "q is the step of q_uniform alone"),
        (content("a: {min: 0, max: 1, distribution: normal}"), "parameters.a.distribution"),
        (content("a: {min: 0, max: 1, distribution: categorical}"), "takes no min and max"),
        (content("a: {values: [1], distribution: uniform}"), "uniform needs min and max"),
        (content("model.dept: {value: 1}"), "model.dept is unknown: model has no dept"),
        (content("model: {values: [foo]}"), "Could not find 'model/foo'"),
        (content("model.core._target_: {value: os.system}"), "RecurrentLayer of tlstm"),
        (content("seed: {value: '{_target_: os.getcwd}'}"), "_target_"),
        (content("model.core.forget_bias: {value: '{_target_: os.getcwd}'}"), "a single value"),
        ("a: " + "[" * 2000, "nested more than 20 deep"),
        ("x" * 2**17 + "x", "has more than 131,072 bytes"),
        ("a: &a {b: c}\n" + "d: {<<: *a}\n" * 21, "more than 20 aliases"),
        (content(f"seed: {{value: {'9' * 5000}}}"), "not YAML"),
        ("name: \udce9", "not YAML"),
        (
            content(", ".join(f"k{n}: {{values: [1, 2, 3]}}" for n in range(30))),
            "more than 10,000 runs",
        ),
        (content("resume: {value: ''}"), "resume must be a path"),
    ],
)
def test_bad_sweep_file_ends_at_once_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content, errors="surrogateescape")
    with pytest.raises(SystemExit) as ended:
        sweep.main([str(file), f"output_dir={tmp_path / 'runs'}", "scale=smoke"])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "bad.yaml" in error
    assert said in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing.yaml"],
        ["no=file.yaml"],
        *(["x.yaml", f"--jobs={number}"] for number in ("0", "--", "1e3", str(10**12))),
    ],
)
def test_bad_arguments_end_with_exit_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        sweep.main(arguments)
    assert ended.value.code == 2


@pytest.mark.slow
def test_records_all_goes_on_past_failures_and_trains_nothing_twice(tmp_path: Path) -> None:
    """One of three runs cannot write its log and its record; the others are recorded, and stay so.

    In a directory and with a file whose names look like something else, on a narrow terminal with
    few signs, and with GPUs that are not there.
    """
    place = tmp_path / "exp [x] [/z]"
    place.mkdir(parents=True)
    write_sweep(
        place / "lr=0.1.yaml",
        task="memorization",
        experiment="depth",
        model=["slstm", "tlstm_2d", "tlstm_3d_cn"],
        **{"model.depth": 2},
    )
    variables = {"PYTHONIOENCODING": "ascii", "COLUMNS": "20", "CUDA_VISIBLE_DEVICES": "0"}

    def sweep_again(*more: str) -> subprocess.CompletedProcess[str]:
        return run_sweep("lr=0.1.yaml", *TINY, *more, cwd=place, **variables)

    runs = read_runs(place / "lr=0.1.yaml", [*TINY, f"output_dir={tmp_path / 'runs'}"])
    directories = [place / "runs" / "depth" / run.directory.name for run in runs]
    blocked = directories[1] / "output.log"
    blocked.mkdir(parents=True)

    first = sweep_again()
    assert first.returncode == 1, first.stderr
    assert "Measuring a few passes of each of 3 runs" in first.stdout.splitlines()[0]
    assert "3 runs, 0 of them recorded already; 3 to train at smoke scale" in first.stdout
    assert "Traceback" not in first.stdout + first.stderr
    assert "120 training samples in" in first.stdout
    *_, heading, reason, log = first.stdout.splitlines()
    assert heading.startswith("1 runs failed")
    assert reason == f"memorization, 2D tLSTM, L=2, seed 0: {blocked}: Is a directory"
    assert log.endswith(f": {blocked}")
    done = [(directory / "record.json").exists() for directory in directories]
    assert done == [True, False, True]

    blocked.rmdir()
    second = sweep_again()
    assert second.returncode == 0, second.stdout
    assert "3 runs, 2 of them recorded already; 1 to train" in second.stdout
    assert f"The runs are in {place / 'runs' / 'depth'}" in second.stdout
    records = [read_record(directory / "record.json") for directory in directories]
    assert [record.identifier for record in records] == [run.identifier for run in runs]
    assert {record.samples for record in records} == {60}

    third = sweep_again()
    assert third.returncode == 0
    assert "nothing to train" in third.stdout

    new = sweep_again("resume=never", "model=slstm", f"output_dir={tmp_path / 'new'}")
    again = sweep_again("resume=never", "model=slstm", f"output_dir={tmp_path / 'new'}")
    for said in (new.stdout, again.stdout):
        assert "done 1/1" in said
        assert "budget spent" in said
    names = {path.parent.name for path in tmp_path.glob("new/*/*/record.json")}
    assert names == {runs[0].directory.name, f"{runs[0].directory.name}-2"}


def fail(content: tuple[str, Path], send: pool.Send) -> None:
    """In the place of a run: end in the way that is asked for."""
    how, log = content
    pool.print_to(log)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "last.ckpt")
    if how == "bug":
        raise KeyError("[/z]\n\x1b[31m")
    if how == "refused":
        raise ValueError("depth must be 1 or more")
    send(1.0)


def test_a_failure_is_of_one_run_and_says_why(tmp_path: Path) -> None:
    """Also where the log is on a full disk."""
    ways = ("full", "killed", "bug", "refused", "none")
    requests = [
        pool.Request((how, Path("/dev/full") if how == "full" else tmp_path / how)) for how in ways
    ]
    said: dict[int, float] = {}
    failures: dict[int, pool.Failure | None] = {}
    pool.run_all(requests, 2, [], said.__setitem__, failures.__setitem__, fail)
    assert said == {4: 1.0}
    assert {ways[index]: failure for index, failure in failures.items()} == {
        "full": pool.Failure("last.ckpt: No space left on device", refused=True),
        "killed": pool.Failure("its process was ended by SIGKILL"),
        "bug": pool.Failure("KeyError: '[/z]\\n\\x1b[31m'"),
        "refused": pool.Failure("depth must be 1 or more", refused=True),
        "none": None,
    }
    assert "Traceback" in (tmp_path / "refused").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_is_killed_while_it_plans_leaves_no_process(
    sent: signal.Signals, tmp_path: Path
) -> None:
    write_sweep(tmp_path / "s.yaml", task="memorization", seed=[str(n) for n in range(40)])
    started = start_process(["s.yaml", *TINY, "--dry-run"], "tlstm.sweep", cwd=tmp_path)
    try:  # itself, two of multiprocessing's own, and one that measures
        wait_until(lambda: len(processes_in(tmp_path)) > 3, "nothing is measured")
        started.send_signal(sent)
        _, said = started.communicate(timeout=60)
    finally:
        started.kill()
    codes = {signal.SIGTERM: 143, signal.SIGKILL: -9, signal.SIGINT: 130}
    assert started.returncode == codes[sent]
    assert said == ("error: interrupted\n" if sent == signal.SIGINT else "")
    wait_until(lambda: not processes_in(tmp_path), "processes are left behind", 20)


@pytest.mark.slow
def test_killed_sweep_leaves_no_process_and_goes_on(tmp_path: Path) -> None:
    """SIGKILL gives the sweep no chance to clean up; its runs end with it all the same."""
    long = [*TINY, "training.max_samples=300000", "training.samples_per_epoch=300"]
    file = write_sweep(tmp_path / "s.yaml", task="memorization", model=["tlstm_2d", "tlstm_3d"])
    runs = read_runs(file, [*long, f"output_dir={tmp_path / 'runs'}"])
    started = start_process(["s.yaml", *long], "tlstm.sweep", cwd=tmp_path)
    checkpoints = [run.directory / "checkpoints" / "last.ckpt" for run in runs]
    wait_until(lambda: all(path.exists() for path in checkpoints), "no checkpoints")
    started.kill()
    started.communicate()
    wait_until(lambda: not processes_in(tmp_path), "the runs outlive their sweep", 20)
    again = run_sweep("s.yaml", *long, "--dry-run", cwd=tmp_path)
    assert "2 to train" in again.stdout


# Several runs on a GPU, where none is needed to see how they are spread


@pytest.mark.parametrize(
    ("arguments", "devices", "devices_per_run", "jobs"),
    [
        ([], ["0", "1"], 1, 2),
        (["--jobs", "5"], ["0", "1"], 1, 5),
        (["--jobs-per-device", "3"], ["0", "1"], 1, 6),
        (["--jobs-per-device", "3", "--jobs", "4"], ["0", "1"], 1, 4),
        (["--jobs", "4"], [], 1, 4),
        ([], ["0", "1", "2", "3"], 2, 2),
        ([], ["0", "1", "2"], 2, 1),
        (["--jobs-per-device", "3"], ["0", "1", "2", "3"], 2, 6),
    ],
)
def test_jobs_and_jobs_per_device(
    arguments: list[str], devices: list[str], devices_per_run: int, jobs: int
) -> None:
    options = sweep.parse(["sweeps/depth.yaml", *arguments])
    asked = options.jobs, options.jobs_per_device
    assert gpus.number_of_jobs(*asked, devices, devices_per_run) == jobs
    with pytest.raises(ValueError, match="--jobs-per-device shares GPUs, and there is none here"):
        gpus.number_of_jobs(options.jobs, 2, [], devices_per_run)


@pytest.mark.parametrize(
    ("named", "number", "found"),
    [
        (None, 2, ["0", "1"]),
        (None, 0, []),
        ("-1", 0, []),
        ("", 0, []),
        ("0", 0, []),
        ("NoDevFiles", 0, []),
        (" 0, 1", 2, ["0", "1"]),
        ("3,-1,1", 1, ["3"]),
        ("GPU-8932f937", 1, ["GPU-8932f937"]),
    ],
)
def test_gpus_are_those_that_are_there(
    named: str | None, number: int, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: number)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus.visible_gpus() == found


def test_cores_are_those_that_the_process_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its affinity and by its group's quota, if that is smaller; OMP_NUM_THREADS is heeded."""
    monkeypatch.setattr(cores, "CGROUPS", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert (cores.cores(), cores.threads_each(2)) == (6, 3)
    for quota, number in (("max 100000", 6), ("250000 100000", 2), ("50000 100000", 1)):
        (tmp_path / "cpu.max").write_text(quota)
        assert cores.cores() == number
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert cores.threads_each(4) == 5


def stay_a_while(log: Path, send: pool.Send) -> None:
    """In the place of a run: note which GPUs it sees, and stay until there are four."""
    log.write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    while len(list(log.parent.iterdir())) < 4:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("devices", "devices_per_run", "taken"),
    [
        (["3", "7"], 1, ["3", "7", "3", "7"]),
        (["0", "1", "4", "5"], 2, ["0,1", "4,5", "0,1", "4,5"]),
        (["0", "1", "2"], 2, ["0,1", "2,0", "1,2", "0,1"]),
    ],
)
def test_runs_are_spread_over_the_devices(
    devices: list[str],
    devices_per_run: int,
    taken: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four at a time, each on those with the fewest; without CUDA they can be forked."""
    assert pool.context(devices).get_start_method() == "spawn"
    forked = pool.context([])
    monkeypatch.setattr(pool, "context", lambda _: forked)
    requests = [pool.Request(tmp_path / str(number), devices_per_run) for number in range(4)]
    failures: dict[int, pool.Failure | None] = {}
    pool.run_all(requests, 4, devices, lambda *_: None, failures.__setitem__, stay_a_while)
    assert failures == dict.fromkeys(range(4))
    assert [request.content.read_text() for request in requests] == taken


def test_throughput_is_of_all_runs_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run 0 goes on from 500 samples; four seconds from the first report to the last."""
    clock = iter([10.0, 11.0, 12.0, 14.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    throughput = Throughput()
    for index, samples in ((0, 500), (1, 0), (0, 900), (1, 1600)):
        throughput.note(index, Status(samples, None, 0.0))
    assert throughput.in_words() == (
        "2,000 training samples in 4 s, 500 a second of all runs together"
    )


@pytest.mark.parametrize("works", [True, False])
def test_the_service_that_shares_gpus_is_started_tried_and_ended(
    works: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    control = tmp_path / gpus.CONTROL
    control.write_text(
        f'#!/bin/sh\n[ "$1" = -d ] && said=start || read said\n'
        f'echo "$said ${{CUDA_VISIBLE_DEVICES-every}} ${gpus.PIPES}" >> {calls}\n'
    )
    control.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.delenv(gpus.PIPES, raising=False)
    trial = f"import os, sys; sys.exit({not works} or '{gpus.PIPES}' not in os.environ)"
    monkeypatch.setattr(gpus, "USE_GPU", trial)
    with gpus.side_by_side() as found:
        assert found == works
        assert (gpus.PIPES in os.environ) == works
    assert gpus.PIPES not in os.environ
    (start, place), (end, same) = (line.rsplit(" ", 1) for line in calls.read_text().splitlines())
    assert (start, end) == ("start every", "quit every")
    assert place == same
    assert not Path(place).exists()


def test_gpus_are_shared_in_turns_without_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(gpus.PIPES, raising=False)
    with gpus.side_by_side() as found:
        assert not found
    monkeypatch.setenv(gpus.PIPES, "/somewhere")
    with gpus.side_by_side() as found:
        assert found
    assert os.environ[gpus.PIPES] == "/somewhere"


def test_estimate_grows_with_the_budget_and_counts_more_than_the_passes() -> None:
    task = ["task=memorization", *TINY]
    few, many = (
        compose([*task, f"training.max_samples={samples}"]).config for samples in (60, 60_000)
    )
    assert estimates.RUN_SECONDS < estimates.estimate(few) < estimates.RUN_SECONDS + 5
    least = 60_000 / 15 * estimates.STEP_SECONDS
    assert estimates.estimate(many) > estimates.RUN_SECONDS + least


def test_a_run_that_cannot_be_measured_does_not_end_the_sweep() -> None:
    """Its weights are larger than the address space."""
    runs = [compose(["task=memorization", *TINY, f"model.channels={m}"]) for m in (10**7, 4)]
    unknown, known = estimates.estimate_all(runs, 1, [])
    assert unknown is None
    assert known is not None


# What it shows


@pytest.mark.parametrize(("seconds", "often"), [(-1.0, True), (1000.0, False)])
def test_where_there_is_no_terminal_lines_say_how_far_runs_are(
    seconds: float, often: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_display, "LINE_SECONDS", seconds)
    said = io.StringIO()
    rows = [RunRow(title, 1000, 60.0, Path("output.log")) for title in ("first", "second")]
    with SweepDisplay(rows, Console(file=said, width=80, markup=False, highlight=False)) as display:
        display.show(0, Status(100, 0.25, 10.0))
        display.show(1, Status(300, None, 30.0))
        display.ended(0, "solved", failed=False)
        display.show(1, Status(500, 0.75, 30.0))
    first = "first: 100 of 1,000 samples, 10 samples/s, accuracy 25.0%"
    lines = [
        f"after 0 s: {first}",
        f"after 0 s: {first}; second: 300 of 1,000 samples, 30 samples/s",
        "done 1/2 after 0 s: first: solved",
        "after 0 s: second: 500 of 1,000 samples, 30 samples/s, accuracy 75.0%",
    ]
    assert said.getvalue().splitlines() == (lines if often else lines[2:3])


@pytest.mark.parametrize(
    ("scale", "more", "task"),
    [
        ("smoke", [], "permuted_digits"),
        ("smoke", ["task=permuted_mnist"], "permuted_mnist"),  # which somebody asks for
        ("paper", [], "permuted_mnist"),
    ],
)
def test_a_figure_names_its_stand_in_at_smoke_scale(
    scale: str, more: list[str], task: str, tmp_path: Path
) -> None:
    """A file of somebody's own does not."""
    file = FOLDER / "fig5-pmnist.yaml"
    runs = read_runs(file, [f"scale={scale}", "model=slstm", *more])
    assert {run.config.task.name for run in runs} == {task}
    own = tmp_path / file.name
    own.write_text(file.read_text())
    runs = read_runs(own, [f"scale={scale}", "model=slstm", *more])
    assert {run.config.task.name for run in runs} == {"permuted_mnist"}
