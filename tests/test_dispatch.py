"""The choice of an implementation: by argument, by environment, by what the tensors allow."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tlstm import TensorizedLSTM, TensorizedRNN
from tlstm.ops.dispatch import resolve_implementation


@pytest.fixture(autouse=True)
def no_implementation_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TLSTM_IMPLEMENTATION", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.mark.parametrize(
    ("argument", "variable", "chosen"),
    [
        (None, "", "pytorch"),
        (None, "autograd", "autograd"),
        ("pytorch", "autograd", "pytorch"),
    ],
)
def test_the_argument_goes_before_the_environment_variable(
    argument: Any, variable: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLSTM_IMPLEMENTATION", variable)
    for kind in (TensorizedRNN, TensorizedLSTM):
        assert f"implementation={chosen!r}" in repr(kind(2, 3, 2, implementation=argument))


@pytest.mark.parametrize("name", ["Triton", "cudnn", "", 1])
def test_an_implementation_that_is_none(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    takes = "must be one of autograd, pytorch, triton, got"
    for kind in (TensorizedRNN, TensorizedLSTM):
        with pytest.raises(ValueError, match=f"implementation {takes} {name!r}"):
            kind(2, 3, 2, implementation=name)
    if name:
        monkeypatch.setenv("TLSTM_IMPLEMENTATION", str(name))
        with pytest.raises(ValueError, match=f"TLSTM_IMPLEMENTATION {takes} '{name}'"):
            TensorizedLSTM(2, 3, 2)


H200 = torch.device("cuda", 0)


@pytest.fixture
def nvidia(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[int, int]], None]:
    """Pretend that the first GPU has a compute capability."""

    def be(capability: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    be((9, 0))
    return be


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_nvidia_gpu_takes_the_kernels(dtype: torch.dtype, nvidia: Any) -> None:
    for asked in (None, "triton"):
        assert resolve_implementation(asked, H200, dtype, rank=3, taps=9) == "triton"
    assert resolve_implementation("pytorch", H200, dtype, rank=3, taps=9) == "pytorch"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((H200, torch.float64, 3, 9), "takes float32, bfloat16 and float16, not torch.float64"),
        ((H200, torch.float32, 4, 27), "not rank 4 with 27"),
        ((H200, torch.float32, 3, 36), "not rank 3 with 36"),
        ((torch.device("cpu"), torch.float32, 3, 9), "NVIDIA GPU, and the tensors are on cpu"),
        ((torch.device("mps"), torch.float32, 3, 9), "NVIDIA GPU, and the tensors are on mps"),
    ],
)
def test_what_the_kernels_cannot_take(
    arguments: tuple[torch.device, torch.dtype, int, int], reason: str, nvidia: Any
) -> None:
    """Silently the next best, unless the kernels were asked for."""
    assert resolve_implementation(None, *arguments) == "pytorch"
    with pytest.raises(ValueError, match=f"implementation 'triton' .*{reason}; 'pytorch' can"):
        resolve_implementation("triton", *arguments)


def test_a_gpu_that_the_kernels_cannot_use(nvidia: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia((7, 5))
    assert resolve_implementation(None, H200, torch.float32, 3, 9) == "pytorch"
    with pytest.raises(ValueError, match="needs an NVIDIA GPU of compute capability 8"):
        resolve_implementation("triton", H200, torch.float32, 3, 9)
    nvidia((9, 0))
    monkeypatch.setattr(torch.version, "cuda", None)  # as on an AMD GPU
    with pytest.raises(ValueError, match="needs an NVIDIA GPU"):
        resolve_implementation("triton", H200, torch.float32, 3, 9)


def test_shapes_come_without_computing() -> None:
    layer = TensorizedLSTM(2, 3, 2, rank=3, device="meta")
    output, (h, c) = layer(torch.randn(4, 5, 2, device="meta"))
    assert output.shape == (4, 5, 3)
    assert h.shape == c.shape == (5, 2, 2, 3)
