"""The operators that PyTorch sees: the whole sequence, forward and backward.

They are registered with `torch.library`, with shapes for tracing and a formula for autograd, so
that `torch.compile`, `torch.export` and DistributedDataParallel take them for one operation.

Dimension letters of this file:
    T       timesteps that are computed
    B       examples
    P..     the location axes
    K..     the kernel's axes
    M       channels
    O       channels that the hidden convolution makes
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from tlstm.ops import eager
from tlstm.ops.arguments import Weights
from tlstm.ops.shapes import Sizes

Kernels = Literal["pytorch", "triton"]
Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
HISTORY = 5  # tensors that the longest of the histories has


def sequence(
    projected: Tensor,
    state: tuple[Tensor, ...],
    weights: Weights,
    lengths: Tensor | None,
    time: int,
    operands: torch.dtype,
    normalization: str,
    kernels: Kernels,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A tensorized RNN or LSTM over a sequence (section 2 of the paper).

    Args:
        projected: x_t Wˣ + bˣ of every step, [T, B, M].
        state: H_0 and, of an LSTM, C_0, each [B, P.., M].
        weights: what is learnt.
        lengths: [B], after how many steps the state of each example is taken; None: `time`.
        time: how many of the steps, the last ones, give an output.
        operands: the type of the operands of the matrix products; the output's.
        normalization: "channel", "layer" or "" for none.
        kernels: "pytorch" or "triton".

    Returns:
        The outputs [time, B, M], and the state.
    """
    hidden, cell = state if len(state) == 2 else (state[0], None)
    arguments = (projected, hidden, cell, *weights)
    keep = torch.is_grad_enabled() and any(
        argument is not None and argument.requires_grad for argument in arguments
    )
    output, last_hidden, last_cell, *_ = _forward(
        *arguments, lengths, time, operands, normalization, kernels, keep
    )
    return output, (last_hidden,) if cell is None else (last_hidden, last_cell)


def _module(kernels: str) -> Any:
    """Where the computation is; the kernels are imported only where they are used."""
    if kernels == "triton":
        from tlstm.ops import triton

        return triton
    return eager


@contextlib.contextmanager
def where(tensor: Tensor) -> Iterator[None]:
    """On the tensor's device, and with products of the types that are asked for.

    Autocast may be on, as when a backward pass is inside it.
    """
    with torch.cuda.device_of(tensor), torch.autocast(tensor.device.type, enabled=False):
        yield


def _filled(history: tuple[Tensor, ...], like: Tensor) -> tuple[Tensor, ...]:
    """A history with empty tensors after it, as the operator returns the same number of all."""
    return (*history, *(like.new_empty([0]) for _ in range(HISTORY - len(history))))


@torch.library.custom_op("tlstm::sequence", mutates_args=())
def _forward(
    projected: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    gain: Tensor | None,
    shift: Tensor | None,
    lengths: Tensor | None,
    time: int,
    operands: torch.dtype,
    normalization: str,
    kernels: str,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    with where(hidden):
        output, last_hidden, last_cell, history = _module(kernels).forward_sequence(
            projected,
            hidden,
            cell,
            Weights(weight, bias, gain, shift),
            lengths,
            time,
            operands,
            normalization,
            keep,
        )
    last_cell = hidden.new_empty([0]) if last_cell is None else last_cell.contiguous()
    return output, last_hidden.contiguous(), last_cell, *_filled(history, hidden)


@_forward.register_fake
def _(
    projected: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    gain: Tensor | None,
    shift: Tensor | None,
    lengths: Tensor | None,
    time: int,
    operands: torch.dtype,
    normalization: str,
    kernels: str,
    keep: bool,
) -> Outputs:
    sizes = Sizes.of(projected, hidden, cell, weight, time)
    output = projected.new_empty([time, sizes.batch_size, sizes.channels], dtype=operands)
    last_cell = hidden.new_empty([0]) if cell is None else cell.new_empty(cell.shape)
    history = _module(kernels).empty_history(sizes, operands, keep, hidden)
    return output, hidden.new_empty(hidden.shape), last_cell, *_filled(history, hidden)  # type: ignore[return-value]


@torch.library.custom_op("tlstm::sequence_backward", mutates_args=())
def _backward(
    grad_output: Tensor | None,
    grad_hidden: Tensor | None,
    grad_cell: Tensor | None,
    projected: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    gain: Tensor | None,
    shift: Tensor | None,
    lengths: Tensor | None,
    time: int,
    normalization: str,
    kernels: str,
    history: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    module = _module(kernels)
    with where(hidden):
        gradients = module.backward_sequence(
            grad_output,
            grad_hidden,
            grad_cell,
            projected,
            hidden,
            cell,
            Weights(weight, bias, gain, shift),
            lengths,
            time,
            normalization,
            module.History(*history[: len(module.History._fields)]),
        )
    return tuple(  # type: ignore[return-value]
        hidden.new_empty([0]) if one is None else one.contiguous() for one in gradients
    )


@_backward.register_fake
def _(
    grad_output: Tensor | None,
    grad_hidden: Tensor | None,
    grad_cell: Tensor | None,
    projected: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    gain: Tensor | None,
    shift: Tensor | None,
    lengths: Tensor | None,
    time: int,
    normalization: str,
    kernels: str,
    history: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    arguments = (projected, hidden, cell, weight, bias, gain, shift)
    return tuple(  # type: ignore[return-value]
        hidden.new_empty([0]) if one is None else one.new_empty(one.shape) for one in arguments
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep for the backward pass the arguments, and the history that the forward pass wrote."""
    time, _, normalization, kernels, ctx.kept = inputs[8:]
    ctx.options = (time, normalization, kernels)
    ctx.given = [argument is not None for argument in inputs[:8]]
    ctx.save_for_backward(*(each for each in inputs[:8] if each is not None), *output[3:])
    ctx.mark_non_differentiable(*output[3:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    """The gradients of all the arguments."""
    if not ctx.kept:
        raise RuntimeError(
            "the gradients of a tensorized layer are not there where it was exported without "
            "them; export it with gradients enabled"
        )
    saved = iter(ctx.saved_tensors)
    inputs = [next(saved) if given else None for given in ctx.given]
    has_cell = ctx.given[2]
    gradients = _backward(
        grads[0],
        grads[1],
        grads[2] if has_cell else None,
        *inputs,
        *ctx.options,
        list(saved),
    )
    of_inputs = zip(gradients, ctx.given[:7], strict=True)
    return (*(gradient if given else None for gradient, given in of_inputs), *[None] * 6)


def no_second(ctx: Any, *grads: Tensor | None) -> None:
    """The formula of what has no derivatives of its own."""
    raise RuntimeError(
        "the gradient of a tensorized layer's gradient (double backward) is not there in its fast "
        "implementations; make the layer with implementation='autograd'"
    )


_forward.register_autograd(_differentiate, setup_context=_save)
_backward.register_autograd(no_second)
