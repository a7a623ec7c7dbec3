"""One timestep for real-time use on a CPU, without gradients: `reference` in few operations.

A step of few examples costs as much as its calls and its copies of the weights. So everything is
read through views, and the taps keep the order of Wʰ.

Dimension letters of this file:
    B       examples
    P..     the location axes; L = P^S locations
    K..     the kernel's axes; K^S taps
    M       channels
    O       channels that the hidden convolution makes
"""

from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from tlstm.ops.geometry import padding
from tlstm.ops.reference import Normalization, normalize
from tlstm.ops.shapes import sources


@torch.no_grad()
def rnn_step(projected: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return H_t of a tensorized RNN; see `reference.rnn_step`."""
    return hidden_convolution(projected, hidden, weight, bias).tanh_().view(hidden.shape)


@torch.no_grad()
def lstm_step(
    projected: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight: Tensor,
    bias: Tensor,
    normalization: Normalization | None = None,
) -> tuple[Tensor, Tensor]:
    """Return H_t and C_t of a tensorized LSTM; see `reference.lstm_step`."""
    channels = cell.shape[-1]
    activations = hidden_convolution(projected, hidden, weight, bias)
    content = activations[:, :channels].tanh_()
    input, forget, output = activations[:, channels : 4 * channels].sigmoid_().chunk(3, dim=-1)
    before = cell.flatten(0, -2)  # [B·L, M]
    if activations.shape[1] > 4 * channels:
        kernels = torch.softmax(activations[:, 4 * channels :], dim=-1)
        before = memory_convolution(cell, kernels, weight.shape[-1])
    after = torch.addcmul(before * forget, content, input).view(cell.shape)
    squashed = torch.tanh(normalize(after, normalization))
    return squashed * output.view(cell.shape), after


def hidden_convolution(projected: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return A_t = Hcat_{t−1} ⊛ {Wʰ, bʰ}, [B·L, O]."""
    axes = hidden.dim() - 2
    before, after = padding(weight.shape[-1])
    padded = F.pad(hidden, [0, 0] + [before, after] * axes)
    corner = padded
    for _ in range(axes):
        corner = corner.select(1, before - 1)
    corner.copy_(projected)
    first, *along, last = padded.stride()
    read = padded.as_strided(
        [*hidden.shape, *weight.shape[2:]], [first, *along, last, *along]
    )  # [B, P.., M, K..]
    weights = weight.flatten(1)  # [O, M·K^S]
    return F.linear(read.reshape(-1, weights.shape[1]), weights, bias)


def memory_convolution(cell: Tensor, kernels: Tensor, kernel_size: int) -> Tensor:
    """Return C^conv_{t−1} [B·L, M] of C_{t−1} [B, P.., M], with kernels [B·L, K^S]."""
    table = _sources(cell.shape[1], cell.dim() - 2, kernel_size, cell.device)
    read = cell.flatten(1, -2).index_select(1, table)  # [B, L·K^S, M]
    read = read.view(*kernels.shape, -1)
    return torch.bmm(kernels.unsqueeze(1), read).squeeze(1)


@cache
def _sources(tensor_size: int, axes: int, kernel_size: int, device: torch.device) -> Tensor:
    """Return the location that each tap of the memory convolution reads, [L·K^S]."""
    return sources(tensor_size, axes, kernel_size, device).flatten()
