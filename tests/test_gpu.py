"""Tests on a GPU, each with a twin on the CPU."""

from pathlib import Path

import pytest
import torch

from tlstm import TensorizedLSTM
from tlstm.layers.stacked import StackedLSTM, StackedRNN
from tlstm.records.schema import (
    read_record,
)
from tlstm.train import run_command

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def gradients(layer: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    output, _ = layer(x)
    weights = torch.linspace(-1, 1, output.numel(), dtype=x.dtype, device=x.device)
    loss = (output.flatten() * weights).sum()
    return [output, *torch.autograd.grad(loss, list(layer.parameters()))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("stack", [StackedLSTM, StackedRNN])
def test_stacks_kernel_agrees_with_its_steps(stack: type, shared: bool, device: str) -> None:
    """On a GPU the kernel is cuDNN's."""
    torch.manual_seed(0)
    layer = stack(5, 6, 3, shared=shared).double().to(device)
    x = torch.randn(7, 2, 5, dtype=torch.float64, device=device)
    output, _ = layer(x)
    state, steps = None, []
    for x_t in x:
        y_t, state = layer.step(x_t, state)
        steps.append(y_t)
    weights = torch.randn_like(output)
    parameters = list(layer.parameters())
    found = torch.autograd.grad((output * weights).sum(), parameters)
    expected = torch.autograd.grad((torch.stack(steps) * weights).sum(), parameters)
    torch.testing.assert_close(output, torch.stack(steps), rtol=1e-10, atol=1e-12)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_stays_near_float32(dtype: torch.dtype, device: str) -> None:
    torch.manual_seed(0)
    layer = TensorizedLSTM(5, 16, 3, rank=3, normalization="channel").to(device)
    x = torch.randn(7, 2, 5, device=device)
    expected = gradients(layer, x)
    with torch.autocast(device, dtype):
        found = gradients(layer, x)
    for a, b in zip(found, expected, strict=True):
        assert (a.float() - b).norm() / b.norm() < 3e-2


@pytest.mark.parametrize("device", DEVICES)
def test_training_runs_and_says_where(device: str, tmp_path: Path) -> None:
    run_command(
        [
            "scale=smoke",
            "task=memorization",
            "task.symbols=3",
            "task.alphabet=4",
            "model.channels=4",
            "model.depth=2",
            "training.max_samples=60",
            "training.samples_per_epoch=30",
            "training.batch_size=15",
            "logger=csv",
            f"output_dir={tmp_path}",
            f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}",
        ]
    )
    (path,) = tmp_path.glob("*/*/record.json")
    record = read_record(path)
    assert ("NVIDIA" in record.hardware.device) == (device == "cuda")
    assert record.milliseconds_per_timestep > 0
