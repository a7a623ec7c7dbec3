"""Runs on several devices, here processes on the CPU: the same training, one record, one end."""

import atexit
import csv
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import (
    TINY,
    measure_quickly,
    record_of,
    run_directory,
    start_process,
    tiny,
    train_here,
    wait_until,
)
from tlstm.records.schema import Record, read_record
from tlstm.sweeping import gpus as sweep_devices
from tlstm.training import recording
from tlstm.training.config import compose
from tlstm.training.distributed import ENDING_SECONDS, TORCHRUN, WorkerSpec
from tlstm.training.module import SequenceModule
from tlstm.training.run import check_devices, make_data

# Three epochs of twenty steps
STEPS = ("training.max_samples=600", "training.samples_per_epoch=200", "training.batch_size=10")
TWO_DEVICES = ("trainer=ddp", "trainer.devices=2")
TWO = (*STEPS, *TWO_DEVICES)
LONG = (*STEPS, "training.max_samples=2000000")
TASKS = {
    "memorization": (),
    "addition": (
        "task=addition",
        "task.digits=2",
        "task.validation_samples=21",
        "task.test_samples=21",
    ),
    "digits": (
        "task=digits",
        "model=tlstm_2d",
        "task.validation_samples=21",
        "task.test_samples=21",
        "training.max_samples=400",
    ),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    measure_quickly(monkeypatch)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The record of a run on one device."""
    return train_here(tiny(tmp_path_factory.mktemp("alone"), *STEPS))


def of_task(task: str, output_dir: Path, *more: str) -> list[str]:
    """The command line of a tiny run of a task."""
    own = ("task",) if TASKS[task] else ()
    base = tuple(setting for setting in TINY if not setting.startswith(own))
    return tiny(output_dir, *STEPS, *TASKS[task], *more, base=base)


def assert_same_training(found: Record, expected: Record) -> None:
    """To rounding: devices add in another order than one alone."""
    assert (found.identifier, found.samples) == (expected.identifier, expected.samples)
    assert [point.samples for point in found.curve] == [point.samples for point in expected.curve]
    for theirs, ours in zip(found.curve, expected.curve, strict=True):
        assert theirs.loss == pytest.approx(ours.loss, rel=1e-4)
        assert theirs.accuracy == pytest.approx(ours.accuracy, abs=1e-6)
    assert found.test == pytest.approx(expected.test, rel=1e-4)


def logged(directory: Path, name: str) -> list[float]:
    """A metric's values in the only CSV below a run's directory."""
    (file,) = directory.glob("csv/*/metrics.csv")
    with file.open() as lines:
        return [float(row[name]) for row in csv.DictReader(lines) if row.get(name)]


# The same training


def test_two_processes_learn_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also validated on an odd number of samples, and tested on each of them once."""
    evaluated = SequenceModule.test_step
    tested: list[int] = []

    def test_step(self: SequenceModule, batch: Any, index: int) -> None:
        tested.append(len(batch.inputs))
        evaluated(self, batch, index)

    monkeypatch.setattr(SequenceModule, "test_step", test_step)
    one = train_here(of_task("digits", tmp_path / "one"))
    two = train_here(of_task("digits", tmp_path / "two", *TWO_DEVICES))
    assert tested == [21, 21]
    assert_same_training(two, one)
    assert (one.hardware.devices, two.hardware.devices) == (1, 2)
    assert two.device_seconds == pytest.approx(2 * two.wall_seconds)
    losses = [
        logged(run_directory(tmp_path / number), "training/loss") for number in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert not torch.distributed.is_initialized()


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("task", TASKS)
def test_two_gpus_learn_as_one_and_end(task: str, tmp_path: Path) -> None:
    """NCCL's processes leave together: the first must leave before it waits for the others."""
    common = ("trainer.accelerator=gpu", "trainer.cuda_graph=false")
    one = train_here(of_task(task, tmp_path / "one", *common))
    begun = time.perf_counter()
    two = train_here(of_task(task, tmp_path / "two", *common, *TWO_DEVICES))
    assert time.perf_counter() - begun < ENDING_SECONDS
    assert_same_training(two, one)
    assert (one.hardware.devices, two.hardware.devices) == (1, 2)


@pytest.mark.parametrize("task", TASKS)
def test_devices_have_as_many_positions_of_the_answer(task: str, tmp_path: Path) -> None:
    """Or the mean of their losses would not be the mean of all."""
    data = make_data(compose(of_task(task, tmp_path)).config)
    for batch in data.train_dataloader():
        assert len(set(batch.loss_mask.sum(1).tolist())) == 1


@pytest.mark.slow
def test_a_sweep_trains_runs_on_several_devices(tmp_path: Path, alone: Record) -> None:
    """One process of the run logs, prints and writes, with several steps at a time."""
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "{program: tlstm.train, method: grid, parameters: {task: {value: memorization}}, "
        "command: [train]}"
    )
    settings = tiny(tmp_path / "runs", *TWO, "logger=default", "trainer.steps_per_launch=3")
    process = start_process([str(file), *settings], module="tlstm.sweep")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "1 at a time, 2 devices each" in out
    directory = run_directory(tmp_path / "runs")
    assert len(list(directory.glob("wandb/offline-run-*/*.wandb"))) == 1
    assert len(list(directory.glob("tensorboard/events.*"))) == 2  # of the curve, of the result
    assert len(logged(directory, "validation/loss")) == 3
    printed = (directory / "output.log").read_text().splitlines()
    assert [line for line in printed if not line.startswith("wandb: WARNING")] == []
    assert record_of(tmp_path / "runs").hardware.devices == 2
    assert_same_training(record_of(tmp_path / "runs"), alone)


# Going on


def at_validation(patch: pytest.MonkeyPatch, number: int, happens: Callable[[], None]) -> None:
    """Let something happen in the first process, at its n-th validation."""
    done = SequenceModule.on_validation_epoch_end
    left = itertools.count(number - 1, -1)

    def on_validation_epoch_end(self: SequenceModule) -> None:
        if next(left) == 0:
            happens()
        done(self)

    patch.setattr(SequenceModule, "on_validation_epoch_end", on_validation_epoch_end)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def kill_other() -> None:
    (other,) = multiprocessing.active_children()
    os.kill(other.pid, signal.SIGKILL)


@pytest.mark.parametrize("numbers", [(2, 1), (1, 2)])
def test_a_terminated_run_goes_on_with_another_number_of_devices(
    numbers: tuple[int, int], tmp_path: Path, alone: Record
) -> None:
    first, second = (tiny(tmp_path, *STEPS, f"trainer.devices={number}") for number in numbers)
    with pytest.MonkeyPatch.context() as patch:
        at_validation(patch, 2, terminate)
        with pytest.raises(SystemExit):
            train_here(first)
    assert multiprocessing.active_children() == []
    assert run_directory(tmp_path).joinpath("checkpoints", "last.ckpt").exists()
    assert not run_directory(tmp_path).joinpath("record.json").exists()
    record = train_here(second)
    assert record.hardware.devices == numbers[1]
    assert_same_training(record, alone)


# What ends a run


def test_a_killed_device_ends_the_run(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at_validation(patch, 2, kill_other)
        with pytest.raises(ChildProcessError) as ended:
            train_here(tiny(tmp_path, *TWO))
    assert str(ended.value) == (
        "device 2 of the run is lost: its process was ended by SIGKILL; "
        "started again, the run goes on from its last checkpoint"
    )
    assert multiprocessing.active_children() == []
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks processes up in /proc")
def test_no_process_outlives_the_first(tmp_path: Path) -> None:
    overrides = tiny(tmp_path, *LONG, "trainer.devices=2")
    process = start_process(overrides)
    checkpoint = compose(overrides).directory / "checkpoints" / "last.ckpt"
    wait_until(lambda: checkpoint.exists() or process.poll() is not None, "no checkpoint")
    (other,) = others_of(process)
    process.kill()
    assert process.communicate()[1] == ""
    wait_until(lambda: not Path(f"/proc/{other}").exists(), "it outlives the first")


def others_of(process: subprocess.Popen[str]) -> list[str]:
    """The processes of the other devices."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    commands = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, command in commands.items() if b"spawn_main" in command]


def failing(overrides: list[str], spec: WorkerSpec, connection: Connection) -> None:
    """Fail at the first step of another device, with a message longer than a pipe takes.

    This process would not end by itself.
    """
    atexit.register(time.sleep, 600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "leave_group", lambda: time.sleep(600))
        patch.setattr(SequenceModule, "learn", lambda *_: {}["missing" * 10_000])
        work(overrides, spec, connection)


def absent(overrides: list[str], spec: WorkerSpec, connection: Connection) -> None:
    """End the process of another device before it is ready."""
    sys.exit(3)


work = recording.work


@pytest.mark.parametrize(
    ("other", "said"),
    [(failing, "KeyError: 'missing"), (absent, "its process ended with exit code 3")],
)
def test_a_failure_of_another_device_is_told(
    other: Callable[..., None],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(recording, "work", other)
    with pytest.raises(ChildProcessError, match=f"device 2 of the run is lost: {said}"):
        train_here(tiny(tmp_path, *TWO))
    assert ("Traceback" in capsys.readouterr().err) == (other is failing)
    assert not torch.distributed.is_initialized()


HANGS = """
import sys, time
import test_ddp
from tlstm.train import run_command
from tlstm.training import distributed, recording
from tlstm.training.module import SequenceModule
if __name__ == "__main__":
    recording.work, distributed.HANGING_SECONDS = test_ddp.failing, 1
    SequenceModule.learn = lambda *_: time.sleep(600)
    run_command(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_process_that_hangs_does_not_outlive_another(tmp_path: Path) -> None:
    """As one does that waits for a GPU which is gone."""
    script = tmp_path / "hangs.py"
    script.write_text(HANGS)
    tests = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, str(script), *tiny(tmp_path / "runs", *TWO)],
        capture_output=True,
        text=True,
        timeout=400,  # of the 600 that it hangs; a busy machine takes its time to import twice
        env=os.environ | {"PYTHONPATH": os.pathsep.join([tests, *sys.path])},
    )
    assert done.returncode == 2, done.stderr
    assert "\nerror: device 2 of the run is lost: KeyError" in done.stderr


# torchrun


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "tlstm"},
    )


@pytest.mark.slow
def test_processes_of_torchrun_are_one_run(tmp_path: Path, alone: Record) -> None:
    """Beside a run that is there already, which the first process alone looks for."""
    first = tiny(tmp_path, *STEPS)
    train_here(first)
    run = compose(first)
    done = torchrun("-m", "tlstm.train", *tiny(tmp_path, *TWO, "resume=never"))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.count("did not pass 99%") == 1
    other = run.directory.with_name(f"{run.directory.name}-2")
    assert {path.name for path in run.directory.parent.iterdir()} == {
        run.directory.name,
        other.name,
    }
    record = read_record(other / "record.json")
    assert record.hardware.devices == 2
    assert_same_training(record, alone)
    assert len(logged(other, "validation/loss")) == 3


# What it refuses


@pytest.fixture
def four_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun starts them."""
    for name in TORCHRUN:
        monkeypatch.setenv(name, "4")


def refusal(*overrides: str) -> str:
    with pytest.raises(ValueError, match="devices") as refused:
        check_devices(compose([*TINY, *overrides]).config)
    return str(refused.value)


def test_batches_are_shared_evenly_and_several_machines_need_torchrun() -> None:
    four = ("trainer.devices=2", "trainer.num_nodes=2")
    said = refusal("training.batch_size=10", *four)
    assert said == "training.batch_size must be a multiple of the number of devices (4), got 10"
    said = refusal("training.batch_size=8", *four)
    assert said.endswith("without torchrun; torchrun --nnodes=2 --nproc-per-node=2 starts them")


@pytest.mark.usefixtures("four_processes")
def test_torchrun_must_start_as_many_processes_as_devices() -> None:
    assert "torchrun has started 4 processes" in refusal("trainer.devices=1")
    settings = ("training.batch_size=8", "trainer.devices=2", "trainer.num_nodes=2")
    check_devices(compose([*TINY, *settings]).config)


def test_a_run_of_a_sweep_cannot_take_more_gpus_than_there_are() -> None:
    runs = [compose([*TINY, "training.batch_size=30", f"trainer.devices={n}"]) for n in (1, 3)]
    assert sweep_devices.most_devices(runs, ["0", "1", "2"]) == 3
    assert sweep_devices.most_devices([], []) == 1
    with pytest.raises(
        ValueError, match=r"trainer\.devices=3 takes more GPUs than the 2 there are"
    ):
        sweep_devices.most_devices(runs, ["0", "1"])


@pytest.mark.parametrize(("gpus", "devices"), [(0, 2), (1, 1), (4, 4)])
def test_a_run_takes_all_gpus_of_the_machine(
    gpus: int, devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    config = compose(["scale=paper", "task=wikipedia_sample", "trainer=ddp"]).config
    assert config.trainer.devices == devices
    check_devices(config)
