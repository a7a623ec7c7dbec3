"""One run: what it leaves, when it ends, where it logs, what it refuses."""

import csv
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from commands import (
    EASY,
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
from tlstm.records.schema import read_record, write_record
from tlstm.train import main, run_command
from tlstm.training import callbacks, checkpoints, display
from tlstm.training.config import CONFIGURATIONS, compose, flat, leaves, plain
from tlstm.training.loggers import wandb_run_id
from tlstm.training.module import SequenceModule
from tlstm.training.recording import find_record
from tlstm.training.run import make_data, make_module
from tlstm.training.trained_run import read_run

VARIABLES = {
    **{f"PL_TRAINER_{name}": "1" for name in ("FAST_DEV_RUN", "MAX_STEPS", "LIMIT_TRAIN_BATCHES")},
    **{"PL_TRAINER_GRADIENT_CLIP_VAL": "0.1", "PL_TRAINER_DETECT_ANOMALY": "nonsense"},
    **{"PL_GLOBAL_SEED": "5", "PL_SEED_WORKERS": "1"},
    **{"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "7"},
    **{"SLURM_NODELIST": "a[1-2]", "SLURM_JOB_NAME": "job", "SLURM_ARRAY_TASK_ID": "2"},
    **{"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "NODE_RANK": "1", "GROUP_RANK": "1"},
    **{"MASTER_PORT": "none", "TORCHELASTIC_RUN_ID": "7"},  # torchrun sets more
    **{"OMPI_COMM_WORLD_SIZE": "4", "LSB_JOBID": "1", "JSM_NAMESPACE_RANK": "2"},
    **{"MPLBACKEND": "module://matplotlib_inline.backend_inline", "JPY_PARENT_PID": "1"},
    **{"COLAB_GPU": "1", "KAGGLE_KERNEL_RUN_TYPE": "Interactive", "HYDRA_FULL_ERROR": "1"},
    **{"CUDA_VISIBLE_DEVICES": "NoDevFiles", "LT_DEVICES": "4", "PYTHONIOENCODING": "utf-8"},
}
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    measure_quickly(monkeypatch)


def run_without_account(overrides: list[str], directory: Path) -> None:
    """Run the command where nobody is logged in to W&B, nobody answers, nothing is reached."""
    patch = pytest.MonkeyPatch()
    measure_quickly(patch)
    for variable in ("API_KEY", "DIR", "RUN_ID", "PROJECT", "ENTITY"):
        patch.delenv(f"WANDB_{variable}", raising=False)
    patch.setenv("WANDB_SILENT", "true")
    patch.setenv("HOME", str(directory))
    patch.setenv("NETRC", str(directory / ".netrc"))
    mode = os.environ.get("WANDB_MODE")

    def refuse(*_: Any) -> None:
        raise AssertionError("nothing may be asked or sent")

    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "localhost", "::1"):
            refuse()
        connect(self, address)

    patch.setattr("builtins.input", refuse)
    patch.setattr("getpass.getpass", refuse)
    patch.setattr(socket.socket, "connect", local_only)
    run_command(overrides)
    assert wandb.run is None
    assert os.environ.get("WANDB_MODE") == mode  # or later runs would be offline too


def refused(overrides: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command is refused with, after exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_command(overrides)
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    return line


def accuracy(module: SequenceModule, samples: list) -> float:
    """The share of right symbols in the answers, one sample after the other."""
    hits = []
    for sample in samples:
        with torch.no_grad():
            guesses = module.network(sample.inputs[None])[0].argmax(-1)
        hits += (guesses == sample.targets)[sample.loss_mask].tolist()
    return np.mean(hits)


# What a run leaves


@pytest.mark.parametrize(
    "model", ["tlstm_3d_cn", "tlstm_3d_ln", "trnn_2d", "slstm", "slstm_unshared", "srnn"]
)
def test_a_run_leaves_its_record(model: str, tmp_path: Path) -> None:
    overrides = tiny(tmp_path, f"model={model}", "experiment=depth", "seed=7")
    returned = train_here(overrides)
    record, run = record_of(tmp_path), compose(overrides)
    assert record == returned
    assert run_directory(tmp_path) == run.directory
    names = (record.experiment, record.scale, record.task, record.model)
    assert names == ("depth", "smoke", "memorization", model)
    assert (record.label, record.depth, record.channels) == (run.config.model.label, 2, 4)
    assert record.seed == 7

    assert record.identifier == run.identifier == compose(record.overrides).identifier
    assert record.config == plain(run.config)

    weights = load(run.directory, "last")["state_dict"]
    counted = sum(value.numel() for key, value in weights.items() if key.startswith("network."))
    assert record.parameters == counted

    assert [point.samples for point in record.curve] == [30, 60, 90]
    assert record.samples == 90
    best = max(record.curve, key=lambda point: point.accuracy)
    assert record.best == best.model_dump(include={"accuracy", "loss", "samples"})
    assert record.last == record.curve[-1].model_dump(include={"accuracy", "loss"})
    assert record.test.keys() == {"accuracy", "loss"}
    assert (record.outcome, record.samples_to_threshold) == ("budget spent", None)
    assert all(earlier.seconds < later.seconds for earlier, later in pairwise(record.curve))

    assert record.milliseconds_per_timestep > 0
    assert record.wall_seconds >= record.curve[-1].seconds > 0
    assert record.device_seconds == record.wall_seconds
    assert record.started < record.finished

    assert record.versions["torch"] == torch.__version__.partition("+")[0]
    assert {"python", "tlstm", "lightning", "numpy"} <= record.versions.keys()
    assert record.hardware.cores == os.cpu_count()
    assert record.hardware.device


def test_the_commit_is_written_down(tmp_path: Path) -> None:
    here = Path(__file__).parent
    git = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True
    )
    if git.returncode:
        pytest.skip("not in a repository")
    assert train_here(tiny(tmp_path)).commit == git.stdout.strip()


def test_the_best_checkpoint_is_what_was_tested(tmp_path: Path) -> None:
    record = train_here(tiny(tmp_path, "training.max_samples=900", base=EASY))
    config = compose(record.overrides).config
    data = make_data(config)
    module = make_module(config, data)
    checkpoint = load(run_directory(tmp_path), "best")
    module.load_state_dict(checkpoint["state_dict"])
    assert record.best["samples"] == checkpoint["global_step"] * 15
    assert record.best["accuracy"] == pytest.approx(accuracy(module, data.validation_set))
    assert record.test["accuracy"] == pytest.approx(accuracy(module, data.test_set))


def test_a_run_ends_with_the_validation_that_reaches_its_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(tiny(tmp_path, "training.max_samples=80"))
    record = read_record(run_directory(tmp_path) / "record.json")
    assert [point.samples for point in record.curve] == [30, 60, 90]
    assert "or 90 samples" in capsys.readouterr().out


def test_checkpoints_are_of_the_best_and_of_the_last_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of equals the earliest is the best; the last one is written whatever it is worth."""
    told = iter([0.5, 0.75, 0.25, 0.75])

    def validation_step(self: SequenceModule, batch: Any, index: int) -> None:
        hit = torch.arange(100) < 100 * next(told)
        self.validation_metrics["accuracy"].update(hit.long(), torch.ones(100).long())
        self.validation_metrics["loss"].update(torch.tensor(1.0))

    monkeypatch.setattr(SequenceModule, "validation_step", validation_step)
    record = train_here(tiny(tmp_path, "training.max_samples=120"))
    directory = run_directory(tmp_path)
    assert [point.accuracy for point in record.curve] == [0.5, 0.75, 0.25, 0.75]
    assert record.best["samples"] == 60
    assert load(directory, "best")["global_step"] == 4
    assert load(directory, "last")["global_step"] == 8
    assert {file.name for file in (directory / "checkpoints").iterdir()} == {
        "best.ckpt",
        "last.ckpt",
    }


# When it ends


def test_an_easy_task_is_solved_and_training_ends(tmp_path: Path) -> None:
    record = train_here(tiny(tmp_path, base=EASY))
    *earlier, last = record.curve
    assert record.outcome == "solved"
    assert record.samples_to_threshold == record.samples == last.samples < 12_000
    assert last.accuracy > 0.85
    assert all(point.accuracy <= 0.85 for point in earlier)
    assert last.loss < record.curve[0].loss / 2
    assert record.best == {"samples": last.samples, "accuracy": last.accuracy, "loss": last.loss}


def test_a_diverging_run_ends_with_a_record(tmp_path: Path) -> None:
    record = train_here(tiny(tmp_path, "training.learning_rate=1e30"))
    assert record.outcome == "diverged"
    assert record.samples == 30
    assert record.last["loss"] is None
    assert record_of(tmp_path) == record


def test_a_run_that_diverges_later_keeps_its_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = SequenceModule.loss

    def loss(self: SequenceModule, batch: Any) -> torch.Tensor:
        return right(self, batch) * (float("nan") if self.global_step == 3 else 1)

    monkeypatch.setattr(SequenceModule, "loss", loss)
    record = train_here(tiny(tmp_path))
    assert [(point.samples, point.loss is None) for point in record.curve] == [
        (30, False),
        (60, True),
    ]
    assert record.outcome == "diverged"
    assert record.best["samples"] == 30
    assert record.test["loss"] is not None


def test_a_finished_run_is_not_trained_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(tiny(tmp_path))
    first, files = capsys.readouterr(), files_below(tmp_path)
    assert "did not pass 99% within 90 samples" in first.out
    run_command(tiny(tmp_path, "logger=default"))
    again = capsys.readouterr()
    assert "This run is finished" in again.out
    assert again.out.splitlines()[-1] == first.out.splitlines()[-1]
    assert files_below(tmp_path) == files


def test_resume_never_trains_beside_it(tmp_path: Path) -> None:
    record = train_here(tiny(tmp_path))
    files = files_below(tmp_path)
    first = run_directory(tmp_path)
    for number in (2, 3):
        other = train_here(tiny(tmp_path, "resume=never"))
        assert read_record(first.with_name(f"{first.name}-{number}") / "record.json") == other
        assert result(other) == result(record)
        assert other.key != record.key
    assert files.items() <= files_below(tmp_path).items()


def test_workers_that_draw_samples_change_nothing(tmp_path: Path) -> None:
    here = train_here(tiny(tmp_path / "here"))
    workers = train_here(tiny(tmp_path / "workers", "trainer.num_workers=2"))
    assert workers.curve[-1].loss == here.curve[-1].loss


# Where it logs


def test_csv_holds_the_curve(tmp_path: Path) -> None:
    record = train_here(tiny(tmp_path))
    (file,) = run_directory(tmp_path).glob("csv/*/metrics.csv")
    rows = [row for row in csv.DictReader(file.open()) if row["validation/accuracy"]]
    found = [[float(row[f"validation/{name}"]) for name in ("accuracy", "loss")] for row in rows]
    assert found == [[point.accuracy, point.loss] for point in record.curve]
    assert [float(row["samples"]) for row in rows] == [30, 60, 90]
    assert not list(run_directory(tmp_path).glob("tensorboard*"))
    assert not list(run_directory(tmp_path).glob("wandb*"))


def test_tensorboard_holds_the_curve_and_the_settings(tmp_path: Path) -> None:
    record = train_here(tiny(tmp_path, "logger.tensorboard=true"))
    events = EventAccumulator(str(run_directory(tmp_path) / "tensorboard"))
    events.Reload()
    curve = [event.value for event in events.Scalars("validation/accuracy")]
    assert curve == pytest.approx([point.accuracy for point in record.curve])
    plugin = events.SummaryMetadata("_hparams_/session_start_info").plugin_data
    settings = {key: str(value) for key, value in flat(compose(record.overrides).config).items()}
    for key in ("model", "task", "model.label"):
        assert key.encode() in plugin.content
        assert settings[key].encode() in plugin.content
    assert events.Scalars("best/accuracy")[-1].value == pytest.approx(record.best["accuracy"])


def test_wandb_needs_no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    overrides = tiny(tmp_path / "runs", "logger.wandb=true")
    in_new_process(run_without_account, overrides, tmp_path / "home")
    directory = run_directory(tmp_path / "runs")
    run_id = (directory / "wandb_run_id").read_text().strip()
    (file,) = directory.glob("wandb/offline-run-*/*.wandb")
    assert file.name == f"run-{run_id}.wandb"
    content = file.read_bytes()
    for words in ("model.depth", "tlstm_3d_cn", "validation/accuracy", "best/accuracy"):
        assert words.encode() in content
    assert directory.name.encode() in content
    assert record_of(tmp_path / "runs").outcome == "budget spent"


def test_wandb_online_without_an_account_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(SystemExit) as ended:
        in_new_process(run_without_account, tiny(tmp_path, "logger.wandb=true"), tmp_path / "home")
    assert ended.value.code == 2
    assert "error: W&B: No API key configured" in capfd.readouterr().err


def test_the_wandb_run_is_the_agents_else_the_runs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    own = wandb_run_id(tmp_path)
    assert wandb_run_id(tmp_path) == own
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    assert wandb_run_id(tmp_path) == "agents"
    monkeypatch.delenv("WANDB_RUN_ID")
    assert wandb_run_id(tmp_path) == "agents"


# What it refuses


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model=foo", "slstm"),
        ("model.dept=3", "did you mean depth?"),
        ("model.depth=0", "model.depth must be an integer of at least 1, got 0"),
        ("model.core.normalization=batch", "normalization must be 'channel', 'layer' or None"),
        ("model.core=3", "model.core is not a single value: set one of its _target_"),
        ("task.alphabet=1", "has only 1 different samples"),
        (
            "training.batch_size=7",
            "training.samples_per_epoch must be a multiple of training.batch_size=7",
        ),
        ("task.symbols=0", "task.symbols must be an integer of at least 1, got 0"),
        ("trainer.devices=2", "training.batch_size must be a multiple of the number of devices"),
        ("trainer.accelerator=abacus", "abacus"),
        ("trainer.precision=3", "trainer.precision must be one of 32-true"),
        ("trainer.cuda_graph=true", "trainer.cuda_graph=true cannot be: CUDA graphs need a GPU"),
        ("resume=nowhere.ckpt", "there is no file nowhere.ckpt"),
        pytest.param("trainer.accelerator=gpu", "gpu", marks=needs_no_gpu),
    ],
)
def test_what_cannot_be_is_refused(
    override: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(tiny(tmp_path, override), capsys)
    assert files_below(tmp_path) == {}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model=slstm", ["of another model: tlstm_3d_cn, L=2, 9 symbols", "this run's is slstm"]),
        ("model.channels=5", ["of another model", "channels=4", "channels=5"]),
        ("task.alphabet=9", ["of another model", "9 symbols", "10 symbols"]),
        ("seed=1", ["of another run: its seed is 0, this run's is 1"]),
        ("training.batch_size=10", ["its training.batch_size is 15, this run's is 10"]),
        ("training.learning_rate=0.1", ["its training.learning_rate is 0.003, this run's is 0.1"]),
        ("training.max_samples=60", ["has seen 90 samples", "training.max_samples=60"]),
    ],
)
def test_another_runs_checkpoint_is_refused(
    override: str, said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its record would tell of what it has not done."""
    train_here(tiny(tmp_path / "first"))
    checkpoint = run_directory(tmp_path / "first") / "checkpoints" / "last.ckpt"
    line = refused(tiny(tmp_path / "second", override, f"resume={checkpoint}"), capsys)
    for words in [str(checkpoint), *said]:
        assert words in line
    assert files_below(tmp_path / "second") == {}


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The directories of two tiny runs that differ in their seeds."""
    with pytest.MonkeyPatch.context() as patch:
        measure_quickly(patch)
        places = [tmp_path_factory.mktemp("runs") for _ in range(2)]
        for seed, place in enumerate(places):
            train_here(tiny(place, f"seed={seed}"))
    return run_directory(places[0]), run_directory(places[1])


def of_other(own: Path, other: Path) -> None:
    shutil.copy(other, own)


def cut(own: Path, other: Path) -> None:
    own.write_bytes(own.read_bytes()[:-100])


def without(*parts: str) -> Callable[[Path, Path], None]:
    def remove(own: Path, other: Path) -> None:
        content = node = torch.load(own, weights_only=True)
        for part in parts[:-1]:
            node = node[part]
        del node[parts[-1]]
        torch.save(content, own)

    remove.__name__ = f"without {parts}"
    return remove


def flipped(own: Path, other: Path) -> None:
    own.write_bytes(bytes(255 - byte for byte in own.read_bytes()))


def with_weight(number: float) -> Callable[[Path, Path], None]:
    def change(own: Path, other: Path) -> None:
        content = torch.load(own, weights_only=True)
        content["state_dict"]["network.head.bias"][0] = number
        torch.save(content, own)

    change.__name__ = f"with {number}"
    return change


def with_part(part: str, value: object) -> Callable[[Path, Path], None]:
    def change(own: Path, other: Path) -> None:
        torch.save(torch.load(own, weights_only=True) | {part: value}, own)

    change.__name__ = f"with {part} {value}"
    return change


def of_first_epoch(own: Path, other: Path) -> None:
    content = torch.load(own, weights_only=True)
    content["global_step"] = 1
    torch.save(content, own)


@pytest.mark.parametrize(
    "damage",
    [
        of_other,
        cut,
        flipped,
        with_weight(float("nan")),
        with_weight(float("inf")),
        with_part("global_step", 4),
        with_part("global_step", "6"),
        without("optimizer_states"),
        without("optimizer_states", 0),
        without("optimizer_states", 0, "state", 1),
        without("callbacks"),
        without("callbacks", "LearningCurve"),
        without("loops"),
        without("state_dict", "network.head.bias"),
    ],
    ids=lambda damage: damage.__name__,
)
@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_files_that_are_not_whole_or_another_runs_are_refused_at_the_start(
    name: str,
    damage: Callable[[Path, Path], None],
    two_runs: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the file to delete, after which the run starts again and ends as it did."""
    own, other = two_runs
    expected = read_record(own / "record.json")
    directory = compose(tiny(tmp_path)).directory
    shutil.copytree(own, directory)
    (directory / "record.json").unlink()
    damage(directory / "checkpoints" / name, other / "checkpoints" / name)
    files = files_below(tmp_path)
    line = refused(tiny(tmp_path), capsys)
    last = directory / "checkpoints" / "last.ckpt"
    assert str(directory / "checkpoints" / name) in line
    assert line.endswith(f"delete {last}, and the run starts from the beginning")
    assert files_below(tmp_path) == files
    if damage is of_other:
        last.unlink()
        assert result(train_here(tiny(tmp_path))) == result(expected)


def test_counts_that_contradict_the_curve_are_refused(
    two_runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = compose(tiny(tmp_path)).directory
    shutil.copytree(two_runs[0], directory)
    (directory / "record.json").unlink()
    with_part("epoch", 50)(directory / "checkpoints" / "last.ckpt", directory)
    assert "last.ckpt is no checkpoint of tlstm.train" in refused(tiny(tmp_path), capsys)


def test_a_label_decides_nothing_about_a_checkpoint(
    two_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    """As it decides nothing about the run: one that was called otherwise goes on."""
    directory = compose(tiny(tmp_path)).directory
    shutil.copytree(two_runs[0], directory)
    (directory / "record.json").unlink()
    assert train_here(tiny(tmp_path, "model.label=mine")).label == "mine"
    assert read_run(directory).config.model.label == "mine"


def test_a_file_where_the_checkpoints_go_is_refused_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = compose(tiny(tmp_path)).directory
    directory.mkdir(parents=True)
    (directory / "checkpoints").touch()
    files = files_below(tmp_path)
    assert f"{directory / 'checkpoints'}: File exists" in refused(tiny(tmp_path), capsys)
    assert files_below(tmp_path) == files


def test_a_best_checkpoint_of_another_moment_is_refused(
    two_runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = compose(tiny(tmp_path)).directory
    shutil.copytree(two_runs[0], directory)
    (directory / "record.json").unlink()
    of_first_epoch(directory / "checkpoints" / "best.ckpt", directory)
    assert "best.ckpt is not the best checkpoint of" in refused(tiny(tmp_path), capsys)
    (directory / "checkpoints" / "best.ckpt").unlink()
    assert "best.ckpt: No such file" in refused(tiny(tmp_path), capsys)


@pytest.mark.parametrize("changed", ["all", "identifier", "config"])
def test_a_record_of_another_run_is_believed_by_no_command(
    changed: str, two_runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, other = (read_record(run / "record.json") for run in two_runs)
    mixed = other if changed == "all" else own.model_copy(update={changed: getattr(other, changed)})
    directory = compose(tiny(tmp_path)).directory
    shutil.copytree(two_runs[0], directory)
    write_record(mixed, directory / "record.json")
    files = files_below(tmp_path)
    line = refused(tiny(tmp_path), capsys)
    assert f"{directory / 'record.json'} is the record of another run" in line
    assert "delete it" in line
    for use in (lambda: read_run(directory), lambda: find_record(compose(tiny(tmp_path)))):
        with pytest.raises(ValueError, match="is the record of another run"):
            use()
    assert files_below(tmp_path) == files


def test_an_output_directory_that_is_a_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("kept")
    assert str(tmp_path / "file") in refused(tiny(tmp_path / "file"), capsys)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_disk_that_fills_up_ends_the_run_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "cannot be written: No space left on device", str(path))

    monkeypatch.setattr(checkpoints, "replace_file", full)
    with pytest.raises(SystemExit) as ended:
        run_command(tiny(tmp_path))
    assert ended.value.code == 2
    assert "best.ckpt: cannot be written: No space left" in capsys.readouterr().err


def test_a_run_that_another_process_trains_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = compose(tiny(tmp_path)).directory
    directory.mkdir(parents=True)
    hold = (
        "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(directory / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "held\n"
        line = refused(tiny(tmp_path), capsys)
        other.communicate("")
    assert line == f"error: {directory}: another process is training this very run"
    run_command(tiny(tmp_path))
    assert record_of(tmp_path).samples == 90


def test_a_damaged_record_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_here(tiny(tmp_path))
    path = run_directory(tmp_path) / "record.json"
    path.write_text(path.read_text()[:100])
    assert f"{path} is not a valid record" in refused(tiny(tmp_path), capsys)


def test_a_run_of_format_1_says_what_brings_it_along(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("training: {batch_size: 1}\n")
    with pytest.raises(ValueError, match=r"format 1; .*results migrate. of commit \w+ brings it"):
        read_run(tmp_path)


def test_many_runs_in_one_process_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "--multirun", "model.depth=1,2"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "python -m tlstm.sweep runs many" in capsys.readouterr().err


# As a command


def test_help_has_a_line_for_every_setting_and_imports_nothing_slow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "task=mnist", "--help"])
    main()
    said = capsys.readouterr().out
    lines = dict(line.strip().partition("=")[::2] for line in said.splitlines() if "=" in line)
    keys = set()
    for task in (file.stem for file in (CONFIGURATIONS / "task").glob("*.yaml")):
        keys |= leaves(compose(["scale=paper", f"task={task}"]).config).keys()
    assert keys <= lines.keys()
    own = ("training.", "trainer.", "logger.", "seed", "resume", "output_dir")
    assert [key for key in lines if key.startswith(own) and "  " not in lines[key]] == []
    assert "hydra" not in said.lower()
    code = (
        "import sys; sys.argv = ['-m', '-h']; import tlstm.train as train; train.main(); "
        "print([name for name in ('torch', 'lightning', 'hydra', 'wandb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("option", ["--hydra-help", "--config-dir=x", "--cfg", "--run", "--info"])
def test_there_are_no_options(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", option, "task=mnist"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {option}: there are no options")


@pytest.mark.parametrize("progress", ["true", "false"])
def test_a_log_tells_of_how_many_samples_and_until_when(
    progress: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(display, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(callbacks, "DISPLAY_SECONDS", 0.0)
    run_command(tiny(tmp_path / "a [b]", f"trainer.progress={progress}"))
    said = capsys.readouterr().out
    assert f"in {tmp_path}/a [b]/" in said  # which is no markup
    found = re.search(r"L=2: 30 of 90 samples, .* samples/s, .*until \d\d:\d\d", said)
    assert bool(found) == (progress == "true")


@pytest.mark.parametrize(
    ("speed", "words"),
    [(1.0, "until 13:00 at most"), (0.1, "until 22:00 at most"), (0.02, "until 14:00 on Sunday")],
)
def test_the_end_is_told_with_the_day_where_it_is_another(speed: float, words: str) -> None:
    noon = datetime(2026, 1, 2, 12)
    assert display.ends(display.Status(0, None, speed), 3600, noon).startswith(words)
    assert "year" in display.ends(display.Status(0, None, 0.0), 3600, noon)


def test_variables_of_shells_schedulers_and_notebooks_change_nothing(tmp_path: Path) -> None:
    """Also where a scheduler's checkpoint lies in the current directory, and none can be drawn."""
    expected = train_here(tiny(tmp_path / "here"))
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes(b"")
    process = subprocess.run(
        [sys.executable, "-m", "tlstm.train", *tiny(tmp_path / "there")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | VARIABLES | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert result(record_of(tmp_path / "there")) == result(expected)


def test_the_command_refuses_with_one_line_and_exit_code_2(tmp_path: Path) -> None:
    process = start_process(tiny(tmp_path, "model=foo"))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert out == ""
    assert [line for line in err.splitlines() if "error" in line] == err.splitlines()[-1:]
    assert err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in err
