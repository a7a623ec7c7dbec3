"""The operators as PyTorch knows them: the whole sequence, forward and backward.

They are registered with `torch.library`, with shapes for tracing and a formula for autograd, so
that `torch.compile`, `torch.export` and DistributedDataParallel treat them as one operation.

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
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from tlstm.ops import eager
from tlstm.ops.dispatch import may_need_gradients
from tlstm.ops.recorder import Results
from tlstm.ops.recording import POOL, may_record
from tlstm.ops.shapes import Sizes, Weights

Kernels = Literal["pytorch", "triton"]
Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
MAX_SAVED_TENSORS = 5  # fields of the longest of the SavedTensors


def sequence(
    projected: Tensor,
    state: tuple[Tensor, ...],
    weights: Weights,
    lengths: Tensor | None,
    delay: int,
    compute_dtype: torch.dtype,
    normalization: str,
    kernels: Kernels,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run a tensorized RNN or LSTM over a sequence (section 2 of the paper).

    Args:
        projected: x_t Wˣ + bˣ of every step, [T, B, M].
        state: H_0 and, of an LSTM, C_0, each [B, P.., M].
        weights: Wʰ and bʰ, gain and bias of the normalization.
        lengths: [B], the step after which each example's state is returned; None: T − delay.
        delay: the number of first steps that give no output.
        compute_dtype: the type of the matrix products' operands and of the output.
        normalization: "channel", "layer" or "" for none.
        kernels: "pytorch" or "triton".

    Returns:
        The outputs [T − delay, B, M], and the state.
    """
    hidden, cell = state if len(state) == 2 else (state[0], None)
    arguments = (projected, hidden, cell, *weights)
    keep = may_need_gradients() and any(
        argument is not None and argument.requires_grad for argument in arguments
    )
    output, last_hidden, last_cell, *_ = _forward(
        *arguments, lengths, delay, compute_dtype, normalization, kernels, keep, may_record()
    )
    return output, (last_hidden,) if cell is None else (last_hidden, last_cell)


def _module(kernels: str) -> Any:
    """Return the package that computes; the kernels are imported only if they are used."""
    if kernels == "triton":
        from tlstm.ops import triton

        return triton
    return eager


@contextlib.contextmanager
def device_and_autocast_off(tensor: Tensor) -> Iterator[None]:
    """Select the tensor's device, and turn autocast off so that products keep their types.

    Autocast may be on: a backward pass can run inside it.
    """
    with torch.cuda.device_of(tensor), torch.autocast(tensor.device.type, enabled=False):
        yield


def _filled(saved: tuple[Tensor, ...], like: Tensor) -> tuple[Tensor, ...]:
    """Return the saved tensors, padded with empty ones: the operator returns a fixed number."""
    return (*saved, *(like.new_empty([0]) for _ in range(MAX_SAVED_TENSORS - len(saved))))


def _contiguous(*tensors: Tensor | None) -> tuple[Any, ...]:
    """Return the tensors without gaps between their numbers, as the kernels read them."""
    return tuple(None if each is None else each.contiguous() for each in tensors)


@torch.library.custom_op("tlstm::sequence", mutates_args=())
def _forward(
    projected: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    norm_gain: Tensor | None,
    norm_bias: Tensor | None,
    lengths: Tensor | None,
    delay: int,
    compute_dtype: torch.dtype,
    normalization: str,
    kernels: str,
    keep: bool,
    record: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    copied = _contiguous(projected, hidden, cell, lengths)
    read = _contiguous(weight, bias, norm_gain, norm_bias)
    options = (delay, compute_dtype, normalization, kernels, keep)
    compute = partial(_compute_forward, options)
    with device_and_autocast_off(hidden):
        if record:
            return POOL.forward(options, copied, read, compute, hidden.device)  # type: ignore[return-value]
        return compute(copied, read)  # type: ignore[return-value]


def _compute_forward(
    options: tuple[Any, ...], copied: tuple[Any, ...], read: tuple[Any, ...]
) -> Results:
    """Return the operator's results from its inputs that differ by call, and from the weights."""
    delay, compute_dtype, normalization, kernels, keep = options
    projected, hidden, cell, lengths = copied
    output, last_hidden, last_cell, saved = _module(kernels).forward_sequence(
        projected,
        hidden,
        cell,
        Weights(*read),
        lengths,
        len(projected) - delay,
        compute_dtype,
        normalization,
        keep,
    )
    last_cell = hidden.new_empty([0]) if last_cell is None else last_cell
    return output, last_hidden, last_cell, *_filled(saved, hidden)


@_forward.register_fake
def _(projected: Tensor, hidden: Tensor, cell: Tensor | None, *others: Any) -> Outputs:
    weight, *_, delay, compute_dtype, _, kernels, keep, _ = others
    sizes = Sizes.of(projected, hidden, cell, weight, projected.shape[0] - delay)
    output = projected.new_empty(
        [sizes.time, sizes.batch_size, sizes.channels], dtype=compute_dtype
    )
    last_cell = hidden.new_empty([0]) if cell is None else cell.new_empty(cell.shape)
    saved = _module(kernels).empty_saved_tensors(sizes, compute_dtype, keep, hidden)
    return output, hidden.new_empty(hidden.shape), last_cell, *_filled(saved, hidden)  # type: ignore[return-value]


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
    norm_gain: Tensor | None,
    norm_bias: Tensor | None,
    lengths: Tensor | None,
    delay: int,
    normalization: str,
    kernels: str,
    saved_1: Tensor,
    saved_2: Tensor,
    saved_3: Tensor,
    saved_4: Tensor,
    saved_5: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    # One by one: vectorized jacobians call an operator again and again, but take no lists
    saved = (saved_1, saved_2, saved_3, saved_4, saved_5)
    grads = _contiguous(grad_output, grad_hidden, grad_cell)
    copied = _contiguous(projected, hidden, cell, lengths)
    read = _contiguous(weight, bias, norm_gain, norm_bias)
    compute = partial(_compute_backward, (delay, normalization, kernels))
    with device_and_autocast_off(hidden):
        return POOL.backward(grads, copied, read, saved, compute, hidden.device)  # type: ignore[return-value]


def _compute_backward(
    options: tuple[Any, ...],
    grads: tuple[Any, ...],
    copied: tuple[Any, ...],
    read: tuple[Any, ...],
    saved: Results,
) -> Results:
    """Return the gradients of the operator's inputs, empty for those that are absent."""
    delay, normalization, kernels = options
    projected, hidden, cell, lengths = copied
    module = _module(kernels)
    gradients = module.backward_sequence(
        *grads,
        projected,
        hidden,
        cell,
        Weights(*read),
        lengths,
        len(projected) - delay,
        normalization,
        module.SavedTensors(*saved[: len(module.SavedTensors._fields)]),
    )
    return tuple(hidden.new_empty([0]) if one is None else one.contiguous() for one in gradients)


@_backward.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    _, hidden, *_ = inputs = arguments[3:10]
    return tuple(
        hidden.new_empty([0]) if one is None else one.new_empty(one.shape) for one in inputs
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep the arguments and the saved tensors for the backward pass."""
    delay, _, normalization, kernels, ctx.kept, _ = inputs[8:]
    ctx.options = (delay, normalization, kernels)
    ctx.present = [argument is not None for argument in inputs[:8]]
    ctx.save_for_backward(*(each for each in inputs[:8] if each is not None), *output[3:])
    ctx.mark_non_differentiable(*output[3:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return the gradients of all the arguments."""
    if not ctx.kept:
        raise RuntimeError(
            "a tensorized layer that was exported without gradients has none; "
            "export it with gradients enabled"
        )
    saved = iter(ctx.saved_tensors)
    inputs = [next(saved) if present else None for present in ctx.present]
    has_cell = ctx.present[2]
    gradients = _backward(
        grads[0],
        grads[1],
        grads[2] if has_cell else None,
        *inputs,
        *ctx.options,
        *saved,
    )
    of_inputs = zip(gradients, ctx.present[:7], strict=True)
    return (*(gradient if present else None for gradient, present in of_inputs), *[None] * 7)


def refuse_double_backward(ctx: Any, *grads: Tensor | None) -> None:
    """Refuse a second derivative."""
    raise RuntimeError(
        "the fast implementations of a tensorized layer have no double backward; "
        "make the layer with implementation='autograd'"
    )


_forward.register_autograd(_differentiate, setup_context=_save)
_backward.register_autograd(refuse_double_backward)
