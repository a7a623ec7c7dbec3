"""A run that was interrupted goes on, and ends as if it had never been."""

import itertools
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from lightning import Trainer
from lightning.pytorch.plugins import AsyncCheckpointIO

from commands import (
    EASY,
    assert_same_weights,
    files_below,
    in_new_process,
    load,
    measure_quickly,
    record_of,
    result,
    run_directory,
    start_process,
    tiny,
    train_here,
)
from tlstm.records.schema import Record
from tlstm.tasks.base import Batch
from tlstm.train import run_command
from tlstm.training import checkpoints, recording
from tlstm.training.config import compose
from tlstm.training.module import SequenceModule
from tlstm.training.run import make_data

# Long enough to be killed on the way: 100 epochs of two steps
LONG = ("training.max_samples=3000", "model=slstm")


class InterruptionError(Exception):
    """Any failure in the middle of a run."""


@pytest.fixture
def signals() -> Iterator[None]:
    """Lightning leaves Ctrl-C switched off where it has seen one."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    measure_quickly(monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny run that was not interrupted."""
    output_dir = tmp_path_factory.mktemp("whole")
    train_here(tiny(output_dir))
    return run_directory(output_dir)


def nth_call_raises(call: int, function: Callable, error: BaseException) -> Callable:
    """Return the function with an error in place of its n-th call."""
    calls = itertools.count(1)

    def counting(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise error
        return function(*arguments, **options)

    return counting


def interrupted_at(step: int, overrides: list[str], patch: pytest.MonkeyPatch) -> None:
    """Train until the n-th step of this process fails."""
    failing = nth_call_raises(step, SequenceModule.training_step, InterruptionError())
    patch.setattr(SequenceModule, "training_step", failing)
    with pytest.raises(InterruptionError):
        train_here(overrides)


def assert_same_end(output_dir: Path, whole: Path) -> Record:
    """A run ended just as the other."""
    record, expected = record_of(output_dir), record_of(whole.parents[1])
    assert result(record) == result(expected)
    assert record.milliseconds_per_timestep > 0
    assert_same_weights(run_directory(output_dir), whole)
    return record


# Interrupted anywhere


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6])
def test_a_failure_at_any_step_changes_nothing(
    step: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_at(step, tiny(tmp_path), monkeypatch)
    checkpoint = run_directory(tmp_path) / "checkpoints" / "last.ckpt"
    assert checkpoint.exists() == (step > 2)
    if step > 2:
        assert load(run_directory(tmp_path), "last")["global_step"] == (step - 1) // 2 * 2
    train_here(tiny(tmp_path))
    assert_same_end(tmp_path, whole)


# Models that draw random numbers, and what else a run keeps
RANDOM = [
    ["model=rhn", "model.core.embedding_size=4", "training.optimizer=sgd"],
    ["model=fs_lstm", "training.optimizer=rmsprop", "training.momentum=0.9"],
    ["model=bn_lstm", "model.depth=1", "training.rate_decay=0.5"],
    ["model=bn_lstm", "model.depth=1", "training.rate_decay=0.1", "training.decay_patience=1"],
]


@pytest.mark.parametrize("settings", RANDOM)
def test_random_numbers_and_rates_go_on(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout, zoneout, noise of training and validation, moments and the learning rate."""
    train_here(tiny(tmp_path / "whole", *settings))
    for step in (4, 2):
        with monkeypatch.context() as patch:
            interrupted_at(step, tiny(tmp_path / "killed", *settings), patch)
    train_here(tiny(tmp_path / "killed", *settings))
    assert_same_end(tmp_path / "killed", run_directory(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("place", "name", "call"),
    [
        (SequenceModule, "on_validation_epoch_end", 2),
        (checkpoints, "replace_file", 1),  # no best checkpoint yet
        (checkpoints, "replace_file", 2),  # the first best checkpoint is there, no last one
        (checkpoints, "replace_file", 3),  # in the next epoch
        (Trainer, "test", 1),
        (recording, "make_record", 1),
        (recording, "write_record", 1),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_failure_between_steps_changes_nothing(
    place: Any, name: str, call: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        place, name, nth_call_raises(call, getattr(place, name), InterruptionError())
    )
    with pytest.raises(InterruptionError):
        train_here(tiny(tmp_path))
    assert not (run_directory(tmp_path) / "record.json").exists()
    train_here(tiny(tmp_path))
    assert_same_end(tmp_path, whole)


def test_many_interruptions_change_nothing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (4, 1, 2, 2):
        with monkeypatch.context() as patch:
            interrupted_at(step, tiny(tmp_path), patch)
    record = train_here(tiny(tmp_path))
    assert_same_end(tmp_path, whole)
    assert all(a.seconds < b.seconds for a, b in zip(record.curve, record.curve[1:], strict=False))


def test_every_sample_is_read_once_and_none_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also across interruptions at the end of an epoch."""
    learn, seen = SequenceModule.training_step, []

    def training_step(self: SequenceModule, batch: Batch, index: int) -> torch.Tensor:
        if self.global_step == 4 and len(seen) == 60:
            raise InterruptionError
        seen.extend(batch.inputs.tolist())
        return learn(self, batch, index)

    monkeypatch.setattr(SequenceModule, "training_step", training_step)
    with pytest.raises(InterruptionError):
        train_here(tiny(tmp_path))
    seen.append("interrupted")
    train_here(tiny(tmp_path))
    seen.remove("interrupted")
    data = make_data(compose(tiny(tmp_path)).config)
    assert seen == [data.train_dataloader().dataset[i].inputs.tolist() for i in range(90)]


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("step", [2, 4])
def test_ctrl_c_ends_with_a_sentence_and_the_same_command_goes_on(
    step: int,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    learn = SequenceModule.training_step
    pressed = nth_call_raises(step, learn, KeyboardInterrupt())
    monkeypatch.setattr(SequenceModule, "training_step", pressed)
    with pytest.raises(SystemExit) as ended:
        run_command(tiny(tmp_path))
    said = capsys.readouterr()
    assert ended.value.code == 130
    assert said.err == "Interrupted; the same command goes on.\n"
    run_command(tiny(tmp_path))
    start = "going on from" if step > 2 else "from the start"
    assert capsys.readouterr().out.splitlines()[1].startswith(start)
    assert_same_end(tmp_path, whole)


# Killed


def started(overrides: list[str]) -> subprocess.Popen[str]:
    """Start a run in a process and return it after its first checkpoint."""
    process = start_process(overrides)
    checkpoint = compose(overrides).directory / "checkpoints" / "last.ckpt"
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    return process


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    killed, whole = tiny(tmp_path / "killed", *LONG), tiny(tmp_path / "whole", *LONG)
    directory = compose(killed).directory
    process = started(killed)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (directory / "record.json").exists()
    assert 1 <= load(directory, "last")["epoch"] + 1 < 100
    train_here(whole)
    train_here(killed)
    assert_same_end(tmp_path / "killed", run_directory(tmp_path / "whole"))


@pytest.mark.slow
def test_ctrl_c_at_a_terminal_leaves_no_traceback(tmp_path: Path) -> None:
    """A real signal to a real process; then the command goes on here."""
    overrides = tiny(tmp_path, *LONG)
    process = started(overrides)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("Interrupted; the same command goes on")
    assert "Traceback" not in err
    assert train_here(overrides).samples == 3000


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_checkpoints_are_whole_wherever_temporary_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is ever copied into its place, where a kill would leave half of it."""
    monkeypatch.setattr(shutil, "copyfile", lambda *_, **__: pytest.fail("copied"))
    monkeypatch.setattr("tempfile.tempdir", "/dev/shm")
    train_here(tiny(tmp_path))
    assert load(run_directory(tmp_path), "last")["global_step"] == 6


def test_a_checkpoint_is_of_the_moment_it_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late it is written."""
    go_on, write = threading.Event(), checkpoints.replace_file

    def late(path: Path, content: bytes) -> None:
        assert go_on.wait(60)
        write(path, content)

    monkeypatch.setattr(checkpoints, "replace_file", late)
    weights, curve = torch.ones(3), [1]
    writer, path = AsyncCheckpointIO(checkpoints.WholeCheckpoints()), tmp_path / "last.ckpt"
    writer.save_checkpoint({"weights": weights, "curve": curve}, path)
    weights.zero_()
    curve.append(2)
    assert not path.exists()
    go_on.set()
    writer.teardown()
    found = torch.load(path)
    assert found["weights"].tolist() == [1, 1, 1]
    assert found["curve"] == [1]


def test_after_a_checkpoint_that_cannot_be_written_none_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a last one could be left without its best one."""
    failing = nth_call_raises(1, checkpoints.replace_file, OSError(28, "No space"))
    monkeypatch.setattr(checkpoints, "replace_file", failing)
    writer = checkpoints.WholeCheckpoints()
    with pytest.raises(OSError, match="No space"):
        writer.save_checkpoint({}, tmp_path / "best.ckpt")
    writer.save_checkpoint({}, tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []


# Ended, but not recorded


@pytest.mark.parametrize(
    ("outcome", "settings"),
    [
        ("solved", EASY),
        ("budget spent", ()),
        ("diverged", ("training.learning_rate=1e30",)),
    ],
)
def test_an_ended_run_without_its_record_is_only_recorded(
    outcome: str, settings: tuple[str, ...], tmp_path: Path
) -> None:
    overrides = tiny(tmp_path, *settings)
    record = train_here(overrides)
    assert record.outcome == outcome
    directory = run_directory(tmp_path)
    (directory / "record.json").unlink()
    checkpoints = files_below(directory / "checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        forbidden = nth_call_raises(1, SequenceModule.training_step, AssertionError("trained"))
        patch.setattr(SequenceModule, "training_step", forbidden)
        again = train_here(overrides)
    assert result(again) == result(record)
    assert again.milliseconds_per_timestep > 0
    assert files_below(directory / "checkpoints") == checkpoints


# Elsewhere


def test_the_best_of_a_moved_directory_stays_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([0.5, 0.75, 0.6])

    def validation_step(self: SequenceModule, batch: Any, index: int) -> None:
        hit = torch.arange(100) < 100 * next(told)
        self.validation_metrics["accuracy"].update(hit.long(), torch.ones(100).long())
        self.validation_metrics["loss"].update(torch.tensor(1.0))

    monkeypatch.setattr(SequenceModule, "validation_step", validation_step)
    interrupted_at(5, tiny(tmp_path / "old"), monkeypatch)
    (tmp_path / "old").rename(tmp_path / "new")
    record = train_here(tiny(tmp_path / "new"))
    assert record.best["samples"] == 60
    assert load(run_directory(tmp_path / "new"), "best")["global_step"] == 4


def test_a_larger_budget_goes_on_from_a_smaller_ones_checkpoint(
    whole: Path, tmp_path: Path
) -> None:
    train_here(tiny(tmp_path / "small", "training.max_samples=60"))
    checkpoint = run_directory(tmp_path / "small") / "checkpoints" / "last.ckpt"
    files = files_below(tmp_path / "small")
    train_here(tiny(tmp_path / "large", f"resume={checkpoint}"))
    assert_same_end(tmp_path / "large", whole)
    assert files_below(tmp_path / "small") == files


def interrupt_and_go_on(overrides: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupted_at(5, overrides, patch)
    wandb.finish()
    train_here(overrides)


def test_the_same_wandb_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    overrides = tiny(tmp_path, "logger.wandb=true")
    in_new_process(interrupt_and_go_on, overrides)
    directory = run_directory(tmp_path)
    run_id = (directory / "wandb_run_id").read_text().strip()
    files = list(directory.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    assert {file.name for file in files} == {f"run-{run_id}.wandb"}
