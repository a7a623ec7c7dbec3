"""Tiny runs and what they leave, for the tests of training and of going on."""

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from tlstm.records.schema import Record, read_record
from tlstm.tasks import download
from tlstm.training import callbacks
from tlstm.training.config import compose
from tlstm.training.recording import train
from tlstm.training.run import setup_run

# Three epochs of two steps
TINY = (
    "scale=smoke",
    "task=memorization",
    "task.symbols=2",
    "task.alphabet=8",
    "model.channels=4",
    "model.depth=2",
    "training.max_samples=90",
    "training.samples_per_epoch=30",
    "training.batch_size=15",
    "task.validation_samples=20",
    "task.test_samples=20",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
    "logger=csv",
)

# Solved within seconds
EASY = (
    *TINY,
    "model=slstm",
    "task.symbols=4",
    "task.alphabet=4",
    "model.channels=24",
    "model.depth=1",
    "training.learning_rate=0.02",
    "training.threshold=0.85",
    "training.max_samples=12000",
    "training.samples_per_epoch=300",
    "task.validation_samples=100",
)


def tiny(output_dir: Path, *more: str, base: tuple[str, ...] = TINY) -> list[str]:
    """The command line of a tiny run; a setting given twice counts as it is given last."""
    return [*base, f"output_dir={output_dir}", *more]


def train_here(overrides: list[str]) -> Record:
    """A run within this process, from its command line to its record."""
    with setup_run(compose(overrides), lambda status: None) as job:
        return train(job)


def measure_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs measure their runtime in next to no time."""
    quick = functools.partial(callbacks.milliseconds_per_timestep, seconds=0.01)
    monkeypatch.setattr(callbacks, "milliseconds_per_timestep", quick)


def forbid_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no server be asked for data."""
    monkeypatch.setattr(download, "reachable", lambda _: False)


def refused(command: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command is refused with, after exit code 2."""
    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def run_directory(output_dir: Path) -> Path:
    """The directory of the only run below an output directory."""
    (directory,) = output_dir.glob("*/*")
    return directory


def record_of(output_dir: Path) -> Record:
    """The record of the only run below an output directory."""
    return read_record(run_directory(output_dir) / "record.json")


def load(directory: Path, name: str) -> dict[str, Any]:
    """A checkpoint of a run, "best" or "last"."""
    path = directory / "checkpoints" / f"{name}.ckpt"
    return torch.load(path, map_location="cpu", weights_only=True)


def result(record: Record) -> dict[str, Any]:
    """A record without what may differ between two runs of the same command: times and places."""
    times = {"started", "finished", "wall_seconds", "device_seconds", "milliseconds_per_timestep"}
    content = record.model_dump(exclude=times | {"overrides"})
    for point in content["curve"]:
        del point["seconds"]
    for place in ("output_dir", "resume"):
        del content["config"][place]
    content["versions"].pop("openmp", None)  # which a command sets, and pytest does not
    return content


def files_below(directory: Path) -> dict[Path, bytes]:
    """Every file below a directory with what it holds, but for locks."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.read_bytes() for path in files}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything that a checkpoint holds, by its place in it."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, f"{path}/{key}")
    else:
        yield path, value


def assert_same_weights(directory: Path, expected: Path) -> None:
    """Both checkpoints of two runs hold the same weights and optimizer states, bit by bit."""
    for name in ("last", "best"):
        found, right = load(directory, name), load(expected, name)
        for part in ("epoch", "global_step", "state_dict", "optimizer_states"):
            theirs, ours = dict(leaves(found[part])), dict(leaves(right[part]))
            assert theirs.keys() == ours.keys()
            for place, value in ours.items():
                same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
                assert same(theirs[place], value), f"{name}: {part}{place}"


def start_process(
    overrides: list[str], module: str = "tlstm.train", cwd: Path | None = None
) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *overrides],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | {"WANDB_MODE": "offline"},
        preexec_fn=heed_interruptions,
    )


def in_new_process(work: Callable[..., None], *arguments: Any) -> None:
    """Do it in a new process: W&B's library keeps what earlier tests left in this one."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(work, *arguments).result()


def heed_interruptions() -> None:
    """Let Ctrl-C be heard: what a shell starts in the background is made deaf to it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_until(holds: Callable[[], object], failure: str, seconds: float = 400) -> None:
    """Wait for something to hold, and fail where it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, failure
        time.sleep(0.1)


def processes_in(directory: Path) -> list[str]:
    """Processes that work in a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink() == directory:
                found.append(entry.name)
        except OSError:
            continue
    return found
