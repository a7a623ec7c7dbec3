"""The input's projection for the kernels, with both of its gradients from one matrix product.

PyTorch's linear layer takes a matrix product for the gradient of Wˣ and a slower sum for that of
bˣ. Here a one follows the input's features: its product with the gradient of the result is the
gradient of bˣ.

Dimension letters of this file:
    N       rows, T·B
    I       features of the input, and J the same with a one after them, padded to a multiple of
            eight
    M       channels
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from tlstm.ops.dispatch import may_need_gradients
from tlstm.ops.matmul import product
from tlstm.ops.operator import device_and_autocast_off, refuse_double_backward

LARGE_PROJECTION = 2**14  # weights


def project(input: Tensor, weight: Tensor, bias: Tensor, compute_dtype: torch.dtype) -> Tensor:
    """Return x Wˣ + bˣ in the weights' type.

    Args:
        input: [.., I].
        weight: Wˣ, [M, I].
        bias: bˣ, [M].
        compute_dtype: the type of the products' operands if there are many weights.

    Returns:
        [.., M].
    """
    return _project(input, weight, bias, compute_dtype if is_large(weight) else weight.dtype)[0]


def is_worthwhile(weight: Tensor) -> bool:
    """Return True if this is faster than PyTorch's linear layer: for gradients or many weights."""
    return may_need_gradients() or is_large(weight)


def is_large(weight: Tensor) -> bool:
    """Return True if there are enough weights for a narrower type to be worth its rounding."""
    return weight.numel() >= LARGE_PROJECTION


@torch.library.custom_op("tlstm::project", mutates_args=())
def _project(
    input: Tensor, weight: Tensor, bias: Tensor, compute_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the projected input, and the rows [N, J] of its product."""
    with device_and_autocast_off(weight):
        rows = _followed_by_ones(input.flatten(0, -2).to(compute_dtype))
        wide = F.pad(weight.to(compute_dtype), (0, rows.shape[1] - weight.shape[1]))
        projected = product(rows, wide.T, None, torch.float32).add_(bias).to(weight.dtype)
    return projected.view(*input.shape[:-1], len(weight)), rows


@_project.register_fake
def _(
    input: Tensor, weight: Tensor, bias: Tensor, compute_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    rows = _followed_by_ones(input.flatten(0, -2).to(compute_dtype))
    return weight.new_empty([*input.shape[:-1], len(weight)]), torch.empty_like(rows)


@torch.library.custom_op("tlstm::project_backward", mutates_args=())
def _project_backward(grad: Tensor, rows: Tensor, features: int) -> tuple[Tensor, Tensor]:
    """Return the gradients of Wˣ and bˣ from that of the projected input, [.., M]."""
    with device_and_autocast_off(grad):
        of_projected = grad.flatten(0, -2).to(rows.dtype)
        both = product(of_projected.T, rows, None, torch.float32).to(grad.dtype)
    return both[:, :features].contiguous(), both[:, features].contiguous()


@_project_backward.register_fake
def _(grad: Tensor, rows: Tensor, features: int) -> tuple[Tensor, Tensor]:
    return grad.new_empty([grad.shape[-1], features]), grad.new_empty([grad.shape[-1]])


def _followed_by_ones(rows: Tensor) -> Tensor:
    """Append a one and zeros: [N, I] → [N, J]."""
    return F.pad(rows, (0, 8 - rows.shape[1] % 8), value=1.0)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.input_dtype = inputs[0].dtype
    ctx.save_for_backward(output[1], inputs[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
    rows, weight = ctx.saved_tensors
    of_input = None
    if ctx.needs_input_grad[0]:
        with device_and_autocast_off(grad):
            of_input = (grad @ weight).to(ctx.input_dtype)
    of_weight, of_bias = _project_backward(grad, rows, weight.shape[1])
    return of_input, of_weight, of_bias, None


_project.register_autograd(_differentiate, setup_context=_save)
_project_backward.register_autograd(refuse_double_backward)
