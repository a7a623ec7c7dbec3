"""The parts of the comparators: torch's own kernels, cuDNN's on a GPU, and the LSTM transform.

Dimension letters of this file:
    T       timesteps
    B       examples
    L       layers of the stack
    M       channels
    G       gates: 4 for the LSTM (PyTorch's order i, f, g, o), 1 for the RNN
"""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from tlstm.ops.dispatch import may_need_gradients

Kernel = Callable[..., tuple[Tensor, ...]]


class LayerWeights(NamedTuple):
    """The weights of one layer: of its input and its hidden state [G·M, M], and the bias [G·M]."""

    input: Tensor
    hidden: Tensor
    bias: Tensor


def run_stack(
    kernel: Kernel,
    steps: Tensor,
    state: Sequence[Tensor],
    layers: Sequence[LayerWeights],
    lengths: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run a stack of layers over whole sequences.

    Args:
        kernel: torch.lstm or torch.rnn_tanh.
        steps: [T, B, M].
        state: each part [L, B, M].
        layers: the weights of each of the L layers; several may be the same.
        lengths: [B], the number of timesteps of each example that count; None: all.

    Returns:
        The last layer's hidden states [T, B, M], zero beyond an example's length, and the state
        at the end of each example.
    """
    weights = _weights(layers)
    if lengths is None:
        output, *parts = _call(kernel, steps, None, state, weights)
        return output, tuple(parts)
    order = lengths.argsort(descending=True)
    back = order.argsort()
    packed = pack_padded_sequence(steps[:, order], lengths[order].cpu())
    sorted_state = [part[:, order] for part in state]
    data, *parts = _call(kernel, packed.data, packed.batch_sizes, sorted_state, weights)
    output, _ = pad_packed_sequence(
        PackedSequence(data, packed.batch_sizes), total_length=len(steps)
    )
    return output[:, back], tuple(part[:, back] for part in parts)


def _weights(layers: Sequence[LayerWeights]) -> list[Tensor]:
    """List the weights as torch's kernels take them, with a second bias of zero."""
    none = torch.zeros_like(layers[0].bias)
    return [tensor for layer in layers for tensor in (*layer, none)]


def _call(
    kernel: Kernel,
    data: Tensor,
    batch_sizes: Tensor | None,
    state: Sequence[Tensor],
    weights: list[Tensor],
) -> tuple[Tensor, ...]:
    """Call the kernel on [T, B, M], or on packed data with its batch sizes."""
    # Biases, layers, dropout, training (which cuDNN's backward needs), bidirectional
    options = (True, len(weights) // 4, 0.0, may_need_gradients(), False)
    parts = tuple(state) if len(state) > 1 else state[0]
    with warnings.catch_warnings():
        # Shared weights cannot lie in one block for every layer, so cuDNN copies them
        warnings.filterwarnings("ignore", message="RNN module weights are not part of single")
        if batch_sizes is None:
            return kernel(data, parts, weights, *options, False)
        return kernel(data, batch_sizes, parts, weights, *options)


def lstm(activation: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Return hidden state and memory [.., M] of an LSTM from its activations [.., 4M]."""
    a_i, a_f, a_g, a_o = activation.chunk(4, dim=-1)
    memory = torch.tanh(a_g) * torch.sigmoid(a_i) + memory * torch.sigmoid(a_f)
    return torch.tanh(memory) * torch.sigmoid(a_o), memory
