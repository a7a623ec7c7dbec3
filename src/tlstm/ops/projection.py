"""The input's projection beside the kernels, with both of its gradients from one product.

PyTorch's own takes a matrix product for the gradient of Wˣ and, for that of bˣ, a sum that lasts
longer. Here a one follows the input's features, whose product with the gradient of the result is
the gradient of bˣ.

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

from tlstm.ops.matmul import product
from tlstm.ops.operator import no_second, where

LARGE_PROJECTION = 2**14  # weights


def project(input: Tensor, weight: Tensor, bias: Tensor, operands: torch.dtype) -> Tensor:
    """X Wˣ + bˣ in the weights' type.

    Args:
        input: [.., I].
        weight: Wˣ, [M, I].
        bias: bˣ, [M].
        operands: the type of the products' operands where there are many weights.

    Returns:
        [.., M].
    """
    return _project(input, weight, bias, operands if is_large(weight) else weight.dtype)[0]


def is_worthwhile(weight: Tensor) -> bool:
    """Whether this takes less time than PyTorch's own: for gradients, or where there is much."""
    return torch.is_grad_enabled() or is_large(weight)


def is_large(weight: Tensor) -> bool:
    """Whether operands of a smaller type are worth their rounding."""
    return weight.numel() >= LARGE_PROJECTION


@torch.library.custom_op("tlstm::project", mutates_args=())
def _project(
    input: Tensor, weight: Tensor, bias: Tensor, operands: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The projected input, and the rows [N, J] that it was made of."""
    with where(weight):
        rows = _followed_by_ones(input.flatten(0, -2).to(operands))
        wide = F.pad(weight.to(operands), (0, rows.shape[1] - weight.shape[1]))
        projected = product(rows, wide.T, None, torch.float32).add_(bias).to(weight.dtype)
    return projected.view(*input.shape[:-1], len(weight)), rows


@_project.register_fake
def _(input: Tensor, weight: Tensor, bias: Tensor, operands: torch.dtype) -> tuple[Tensor, Tensor]:
    rows = _followed_by_ones(input.flatten(0, -2).to(operands))
    return weight.new_empty([*input.shape[:-1], len(weight)]), torch.empty_like(rows)


@torch.library.custom_op("tlstm::project_backward", mutates_args=())
def _project_backward(grad: Tensor, rows: Tensor, features: int) -> tuple[Tensor, Tensor]:
    """The gradients of Wˣ and bˣ from that of the projected input, [.., M]."""
    with where(grad):
        of_projected = grad.flatten(0, -2).to(rows.dtype)
        both = product(of_projected.T, rows, None, torch.float32).to(grad.dtype)
    return both[:, :features].contiguous(), both[:, features].contiguous()


@_project_backward.register_fake
def _(grad: Tensor, rows: Tensor, features: int) -> tuple[Tensor, Tensor]:
    return grad.new_empty([grad.shape[-1], features]), grad.new_empty([grad.shape[-1]])


def _followed_by_ones(rows: Tensor) -> Tensor:
    """[N, I] → [N, J]."""
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
        with where(grad):
            of_input = (grad @ weight).to(ctx.input_dtype)
    of_weight, of_bias = _project_backward(grad, rows, weight.shape[1])
    return of_input, of_weight, of_bias, None


_project.register_autograd(_differentiate, setup_context=_save)
_project_backward.register_autograd(no_second)
