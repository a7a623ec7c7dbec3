"""Optimizer steps replayed from a CUDA graph train as those that are not: with twins on the CPU.

There is no CUDA graph on the CPU. What stands for one keeps its rules: it runs what it records a
few times beforehand, records without running, and leaves every result in the same place.
"""

import csv
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from commands import (
    assert_same_weights,
    load,
    measure_quickly,
    record_of,
    result,
    run_directory,
    tiny,
    train_here,
)
from tlstm.records.schema import Record
from tlstm.tasks.base import Batch
from tlstm.training import callbacks, cuda_graph, module
from tlstm.training import run as job
from tlstm.training.config import compose
from tlstm.training.cuda_graph import WARM_UPS, GraphedStep, cuda_graph_obstacle
from tlstm.training.module import SequenceModule
from tlstm.training.optimizers import device_options, make_optimizer
from tlstm.training.run import setup_run

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


class HostGraph:
    """Stands for a CUDA graph on the CPU."""

    def __init__(self, compute: Callable[[], Tensor]) -> None:
        with torch.random.fork_rng([]):
            for _ in range(WARM_UPS):
                self.result = compute()
        self._compute, self._replays = compute, 0

    def replay(self) -> None:
        self.result.copy_(self._compute())
        self._replays += 1

    def busy_seconds(self) -> float:
        replays, self._replays = self._replays, 0
        return 1e-3 * replays


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    measure_quickly(monkeypatch)


@pytest.fixture
def settings(device: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the settings of a run with a CUDA graph on a device."""
    if device == "cuda":
        return ["trainer.accelerator=gpu", "trainer.cuda_graph=true"]
    monkeypatch.setattr(cuda_graph, "CudaGraph", HostGraph)
    monkeypatch.setattr(callbacks, "CudaGraph", HostGraph)
    monkeypatch.setattr(job, "cuda_graph_obstacle", lambda *_: None)
    return ["trainer.accelerator=cpu", "trainer.cuda_graph=true"]


def assert_same_curve(found: Record, expected: Record, device: str) -> None:
    """Compare the losses of two runs, bit by bit on the CPU."""
    assert [point.samples for point in found.curve] == [point.samples for point in expected.curve]
    theirs = torch.tensor([point.loss for point in found.curve], dtype=torch.float64)
    ours = torch.tensor([point.loss for point in expected.curve], dtype=torch.float64)
    tolerance = 0 if device == "cpu" else 1e-4
    torch.testing.assert_close(theirs, ours, rtol=tolerance, atol=0)


def logged(output_dir: Path, name: str) -> list[tuple[int, float]]:
    """A metric's values with their steps, from the CSV of the only run below a directory."""
    (file,) = run_directory(output_dir).glob("csv/*/metrics.csv")
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    return [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]


# The same training


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("model", "precision", "others"),
    [
        ("tlstm_3d_cn", "bf16-mixed", []),
        ("tlstm_2d", "64-true", []),
        ("trnn_2d", "32-true", ["training.optimizer=rmsprop", "training.momentum=0.5"]),
        ("slstm", "32-true", ["training.optimizer=sgd", "training.rate_decay=0.5"]),
        ("rhn", "32-true", ["model.core.embedding_size=4"]),  # with dropout
    ],
)
def test_captured_training_is_the_same(
    model: str,
    precision: str,
    others: list[str],
    device: str,
    settings: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOGGED_STEPS", 1)
    given = ["training.gradient_clip=0.1", "training.warmup_samples=90"]
    common = [f"model={model}", f"trainer.precision={precision}", *given, *others, *settings]
    replayed = train_here(tiny(tmp_path / "captured", *common))
    plain = train_here(tiny(tmp_path / "plain", *common, "trainer.cuda_graph=false"))
    assert replayed.identifier == plain.identifier
    assert_same_curve(replayed, plain, device)
    losses = {name: logged(tmp_path / name, "training/loss") for name in ("captured", "plain")}
    assert [step for step, _ in losses["plain"]] == [1, 2, 3, 4, 5, 6]
    for found, expected in zip(losses["captured"], losses["plain"], strict=True):
        assert found == pytest.approx(expected, rel=0 if device == "cpu" else 1e-4)
    if device == "cpu":
        directories = [run_directory(tmp_path / name) for name in ("captured", "plain")]
        assert_same_weights(*directories)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("first", ["true", "false"])
@pytest.mark.parametrize("warmup_samples", [0, 90])
def test_a_run_goes_on_captured_or_not(
    warmup_samples: int, first: str, device: str, settings: list[str], tmp_path: Path
) -> None:
    """And so do the optimizer's moments and the learning rate."""
    second = {"true": "false", "false": "true"}[first]
    settings = [*settings, f"training.warmup_samples={warmup_samples}"]
    whole = train_here(tiny(tmp_path / "whole", *settings, "trainer.cuda_graph=false"))
    short = [*settings, f"trainer.cuda_graph={first}", "training.max_samples=60"]
    train_here(tiny(tmp_path / "short", *short))
    checkpoint = run_directory(tmp_path / "short") / "checkpoints" / "last.ckpt"
    again = [*settings, f"trainer.cuda_graph={second}", f"resume={checkpoint}"]
    assert_same_curve(train_here(tiny(tmp_path / "again", *again)), whole, device)


@pytest.mark.gpu
@pytest.mark.parametrize(("first", "second"), [("cpu", "gpu"), ("gpu", "cpu")])
def test_a_run_goes_on_on_another_device(first: str, second: str, tmp_path: Path) -> None:
    whole = train_here(tiny(tmp_path / "whole"))
    short = [f"trainer.accelerator={first}", "training.max_samples=60"]
    train_here(tiny(tmp_path / "short", *short))
    checkpoint = run_directory(tmp_path / "short") / "checkpoints" / "last.ckpt"
    again = [f"trainer.accelerator={second}", f"resume={checkpoint}"]
    record = train_here(tiny(tmp_path / "again", *again))
    for found, expected in zip(record.curve, whole.curve, strict=True):
        assert found.loss == pytest.approx(expected.loss, rel=1e-2)


def of_a_gpu(checkpoint: dict[str, Any]) -> None:
    for group in checkpoint["optimizer_states"][0]["param_groups"]:
        group |= device_options("adam", torch.device("cuda"))
        assert group["capturable"] is group["fused"] is True


def of_automatic_optimization(checkpoint: dict[str, Any]) -> None:
    """Lightning counted its steps elsewhere."""
    counted = checkpoint["loops"]["fit_loop"][module.STEPS_COUNTED]["total"]
    assert counted == {"ready": 4, "completed": 4}
    counted.update(ready=0, completed=0)


@pytest.mark.parametrize("change", [of_a_gpu, of_automatic_optimization])
def test_a_run_goes_on_from_other_checkpoints(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    """The twin of going on on another device."""
    train_here(tiny(tmp_path / "short", "training.max_samples=60"))
    checkpoint = run_directory(tmp_path / "short") / "checkpoints" / "last.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    change(content)
    torch.save(content, checkpoint)
    found = train_here(tiny(tmp_path / "again", f"resume={checkpoint}"))
    assert_same_curve(found, train_here(tiny(tmp_path / "whole")), "cpu")


def learner(parameter: Tensor, optimizer: Optimizer) -> Callable[[Batch], Tensor]:
    """Return an optimizer step of a model with one parameter."""

    def learn(batch: Batch) -> Tensor:
        optimizer.zero_grad()
        loss = ((parameter * batch.inputs - batch.targets) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return learn


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("kind", "momentum"), [("adam", 0), ("rmsprop", 0.9), ("sgd", 0.9)])
def test_the_first_passes_leave_no_trace(
    kind: str, momentum: float, device: str, settings: list[str]
) -> None:
    """Neither at the start, nor with an optimizer that has moments."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(3, device=device))
    twin = torch.nn.Parameter(weight.detach().clone())
    batches = [Batch(*(torch.randn(3, device=device) for _ in Batch._fields)) for _ in range(6)]

    optimizers = [
        make_optimizer(kind, [parameter], 0.1, momentum, torch.device(device))
        for parameter in (weight, twin)
    ]
    plain = learner(twin, optimizers[1])
    for part in (batches[:3], batches[3:]):  # the second recording meets moments
        replayed = GraphedStep(learner(weight, optimizers[0]), optimizers[0], part[0])
        for batch in part:
            torch.testing.assert_close(replayed(batch), plain(batch), rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(weight, twin, rtol=1e-6, atol=1e-6)
    states = [optimizer.state_dict()["state"][0] for optimizer in optimizers]
    assert states[0].get("step") == states[1].get("step") == (None if kind == "sgd" else 6)


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_of_another_shape_is_refused(device: str, settings: list[str]) -> None:
    weight = torch.nn.Parameter(torch.ones(3, device=device))
    optimizer = make_optimizer("adam", [weight], 0.1, 0, torch.device(device))
    batch = Batch(*(torch.ones(3, device=device),) * 3)
    step = GraphedStep(learner(weight, optimizer), optimizer, batch)
    with pytest.raises(ValueError, match=r"captured shape \[3\], got \[1\]"):
        step(Batch(*(torch.ones(1, device=device),) * 3))


@pytest.mark.parametrize("device", DEVICES)
def test_symbols_that_are_none_are_refused_all_the_same(
    device: str, settings: list[str], tmp_path: Path
) -> None:
    with setup_run(compose(tiny(tmp_path, *settings)), lambda status: None) as prepared_job:
        loader = prepared_job.data.train_dataloader

        def spoilt() -> Any:
            batches = loader()
            batches.collate_fn = lambda samples: Batch(
                *(torch.full((15, 7), 9) for _ in range(2)), torch.ones(15, 7, dtype=torch.bool)
            )
            return batches

        prepared_job.runtime.on_train_start = lambda *_: None
        prepared_job.data.train_dataloader = spoilt
        with pytest.raises(ValueError, match="tokens must be from 0 to 8, got from 9 to 9"):
            prepared_job.trainer.fit(prepared_job.module, prepared_job.data)


@pytest.mark.parametrize("device", DEVICES)
def test_how_busy_the_device_is_is_logged(device: str, settings: list[str], tmp_path: Path) -> None:
    train_here(tiny(tmp_path, *settings))
    busy = logged(tmp_path, "device_busy")
    assert [step for step, _ in busy] == [2, 4, 6]
    assert all(0 < share < 1 for _, share in busy)


@pytest.mark.gpu
def test_what_cannot_be_recorded_says_how_to_do_without() -> None:
    """In a process of its own: CUDA does not get over it."""
    waits = (
        "import torch; from tlstm.training.cuda_graph import CudaGraph; "
        "x = torch.ones(3, device='cuda'); CudaGraph(lambda: x * float(x.sum()))"
    )
    done = subprocess.run([sys.executable, "-c", waits], capture_output=True, text=True)
    assert done.returncode == 1
    assert "trainer.cuda_graph=false trains without" in done.stderr


@pytest.mark.parametrize(
    ("device", "world_size", "precision", "said"),
    [
        ("cuda", 1, "32-true", None),
        ("cuda", 1, "bf16-mixed", None),
        ("cuda", 2, "32-true", "exchange gradients"),
        ("cuda", 1, "16-mixed", "scale the loss"),
        ("cpu", 1, "32-true", "need a GPU, and this run trains on cpu"),
    ],
)
def test_why_steps_are_not_captured(
    device: str, world_size: int, precision: str, said: str | None
) -> None:
    reason = cuda_graph_obstacle(torch.device(device), world_size, precision)
    assert reason == said if said is None else said in reason


# Many steps at a time


EPOCHS = ("training.max_samples=540", "training.samples_per_epoch=90")


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output directory of a run of six epochs of six steps."""
    output_dir = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LOGGED_STEPS", 3)
        train_here(tiny(output_dir, *EPOCHS, "trainer.steps_per_launch=1"))
    return output_dir


def without_machine(record: Record) -> dict[str, Any]:
    content = result(record)
    del content["config"]["trainer"]
    return content


@pytest.mark.parametrize("steps", ["auto", 3, 4, 50])
def test_many_steps_at_a_time_change_nothing(
    steps: int | str, one_by_one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they do not divide the epoch."""
    monkeypatch.setattr(module, "LOGGED_STEPS", 3)
    record = train_here(tiny(tmp_path, *EPOCHS, f"trainer.steps_per_launch={steps}"))
    expected = record_of(one_by_one)
    assert without_machine(record) == without_machine(expected)
    assert_same_weights(run_directory(tmp_path), run_directory(one_by_one))
    for name in ("training/loss", "validation/loss", "samples"):
        assert logged(tmp_path, name) == logged(one_by_one, name)
    assert [step for step, _ in logged(tmp_path, "training/loss")] == list(range(3, 37, 3))


@pytest.mark.parametrize(("first", "second"), [(1, 4), (50, 3)])
def test_a_run_goes_on_with_other_steps_at_a_time(
    first: int, second: int, one_by_one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, calls = SequenceModule.learn, itertools.count(1)

    def interrupted(self: SequenceModule, batch: Batch) -> Tensor:
        if next(calls) == 16:  # in the third epoch
            raise KeyError
        return learn(self, batch)

    monkeypatch.setattr(SequenceModule, "learn", interrupted)
    overrides = tiny(tmp_path, *EPOCHS)
    with pytest.raises(KeyError):
        train_here([*overrides, f"trainer.steps_per_launch={first}"])
    assert load(run_directory(tmp_path), "last")["global_step"] == 12
    record = train_here([*overrides, f"trainer.steps_per_launch={second}"])
    assert without_machine(record) == without_machine(record_of(one_by_one))
    assert_same_weights(run_directory(tmp_path), run_directory(one_by_one))
