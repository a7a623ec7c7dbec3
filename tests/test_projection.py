"""The projection of the input that goes with the kernels, beside PyTorch's own in float64."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from tlstm.ops.projection import LARGE_PROJECTION, project
from variants import assert_near

pytestmark = pytest.mark.usefixtures("poisoned_memory")  # and products without short cuts

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def results(forward: object, *leaves: Tensor) -> list[Tensor]:
    """The projected input and the gradients, with a cotangent that tells them apart."""
    leaves = tuple(leaf.detach().requires_grad_() for leaf in leaves)
    projected = forward(*leaves)  # type: ignore[operator]
    cotangent = torch.linspace(-1, 1, projected.numel(), dtype=torch.float64)
    cotangent = cotangent.view(projected.shape).cos().to(projected)
    return [projected.detach(), *torch.autograd.grad(projected, leaves, cotangent)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("compute_dtype", "channels", "tolerance"),
    [
        (torch.float32, 6, 1e-6),
        (torch.bfloat16, 6, 1e-6),  # few weights are not rounded
        (torch.bfloat16, LARGE_PROJECTION // 5, 1e-2),
    ],
    ids=["float32", "bfloat16, small", "bfloat16, large"],
)
@pytest.mark.parametrize("features", [1, 5, 8])
def test_equals_pytorchs_linear(
    features: int, compute_dtype: torch.dtype, channels: int, tolerance: float, device: str
) -> None:
    if channels > 6:
        channels = -(-LARGE_PROJECTION // features)
    generator = torch.Generator().manual_seed(features)
    shapes = [(4, 3, features), (channels, features), (channels,)]
    exact = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    expected = results(F.linear, *exact)
    given = [each.to(device, torch.float32) for each in exact]
    with torch.autocast(device, torch.bfloat16):  # it decides by itself what is rounded
        found = results(lambda *leaves: project(*leaves, compute_dtype), *given)
    assert {actual.dtype for actual in found} == {torch.float32}
    names = ("projected", "gradient of input", "gradient of weight", "gradient of bias")
    found = [actual.cpu().double() for actual in found]
    assert_near(*(dict(zip(names, them, strict=True)) for them in (found, expected)), tolerance)


def test_it_has_no_second_derivative() -> None:
    weight = torch.randn(3, 2, requires_grad=True)
    projected = project(torch.randn(4, 2), weight, torch.zeros(3), torch.float32)
    (gradient,) = torch.autograd.grad(projected.square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        gradient.sum().backward()
