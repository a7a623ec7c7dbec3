"""The equations: one timestep of a tensorized RNN and LSTM, as the paper writes it.

Read it together with section 2 of the paper. It is the oracle of every faster path, for any rank,
kernel size and tensor size.

Dimension letters of this file:
    B       examples
    P..     the location axes, one for each of S = D − 1, each P long
    M       channels
    K..     the kernel's axes, one for each of S
    O       channels that the hidden convolution makes: M (tRNN), 4M (−M) or 4M + K^S
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from tlstm.ops.geometry import padding

NORMALIZATION_EPSILON = 1e-5


class Normalization(NamedTuple):
    """The normalization of the memory cell on its way to the hidden state.

    Attributes:
        kind: "channel": every location over its own M channels (CN [paper]);
            "layer": over all locations and channels of an example (LN).
        gain: Γ, [P.., M] for "channel", [M] for "layer" [ours].
        bias: B, of the same shape.
    """

    kind: Literal["channel", "layer"]
    gain: Tensor
    bias: Tensor


def rnn_step(projected: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return H_t of a tensorized RNN: the tanh of the hidden convolution.

    Args:
        projected: x_t Wˣ + bˣ, [B, M].
        hidden: H_{t−1}, [B, P.., M].
        weight: Wʰ, [M, M, K..].
        bias: bʰ, [M].

    Returns:
        H_t, [B, P.., M].
    """
    return torch.tanh(hidden_convolution(projected, hidden, weight, bias))


def lstm_step(
    projected: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight: Tensor,
    bias: Tensor,
    normalization: Normalization | None = None,
) -> tuple[Tensor, Tensor]:
    """Return H_t and C_t of a tensorized LSTM.

    The memory cell is convolved if the hidden convolution makes more channels than the 4M of the
    four gates.

    Args:
        projected: x_t Wˣ + bˣ, [B, M].
        hidden: H_{t−1}, [B, P.., M].
        cell: C_{t−1}, [B, P.., M].
        weight: Wʰ, [O, M, K..].
        bias: bʰ, [O].
        normalization: CN, LN or none.

    Returns:
        (H_t, C_t), each [B, P.., M].
    """
    channels = cell.shape[-1]
    activation = hidden_convolution(projected, hidden, weight, bias)  # A_t [B, P.., O]
    gates, logits = activation.split([4 * channels, activation.shape[-1] - 4 * channels], dim=-1)
    a_g, a_i, a_f, a_o = gates.chunk(4, dim=-1)

    if logits.shape[-1] > 0:
        cell = memory_convolution(cell, torch.softmax(logits, dim=-1), kernel_size=weight.shape[-1])
    cell = torch.tanh(a_g) * torch.sigmoid(a_i) + cell * torch.sigmoid(a_f)  # C_t
    hidden = torch.tanh(normalize(cell, normalization)) * torch.sigmoid(a_o)  # H_t
    return hidden, cell


def hidden_convolution(projected: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return A_t = Hcat_{t−1} ⊛ {Wʰ, bʰ}.

    Hcat is H_{t−1} with one more location before each axis: the input at the common corner of
    these, zeros elsewhere. Zero padding, r − 1 before and K − 1 − r after, keeps P locations.

    Returns:
        A_t, [B, P.., O].
    """
    axes = hidden.dim() - 2
    before, after = padding(weight.shape[-1])
    concatenated = F.pad(hidden, [0, 0] + [before, after] * axes)  # r = 1 for Hcat, r − 1 zeros
    corner = projected.reshape(-1, *[1] * axes, projected.shape[-1])
    # A sum and not a write in place: vmap may have more projected inputs than hidden states
    concatenated = concatenated + F.pad(
        corner, [0, 0] + [before - 1, hidden.shape[1] + after] * axes
    )
    read = neighbourhoods(concatenated, weight.shape[-1])  # [B, P.., M, K^S]
    return F.linear(read.flatten(-2), weight.movedim(1, -1).flatten(1), bias)


def memory_convolution(cell: Tensor, kernels: Tensor, kernel_size: int) -> Tensor:
    """Return C^conv: the memory cell, convolved with a kernel of its own at every location.

    C^conv[p] = Σ_k W^c(p)[k] · C[p − r + k], the same for all channels. Copies of the boundary
    pad the border, so that what is stored is not flushed out.

    Args:
        cell: C_{t−1}, [B, P.., M].
        kernels: W^c_t, [B, P.., K^S], row-major over K..; each sums to 1.
        kernel_size: K.

    Returns:
        C^conv_{t−1}, [B, P.., M].
    """
    read = neighbourhoods(replicate_border(cell, *padding(kernel_size)), kernel_size)
    return (kernels.unsqueeze(-2) @ read).squeeze(-2)


def neighbourhoods(padded: Tensor, kernel_size: int) -> Tensor:
    """Gather a kernel's input at every location: [B, (P+K−1).., M] → [B, P.., M, K^S]."""
    axes = padded.dim() - 2
    size = padded.shape[1] - kernel_size + 1
    for axis in range(1, axes + 1):
        padded = torch.stack([padded.narrow(axis, k, size) for k in range(kernel_size)], dim=-2)
    return padded.flatten(1 + axes, -2)


def replicate_border(tensor: Tensor, before: int, after: int) -> Tensor:
    """Pad each location axis of [B, P.., M] with copies of its boundary."""
    for axis in range(1, tensor.dim() - 1):
        first, last = tensor.narrow(axis, 0, 1), tensor.narrow(axis, tensor.shape[axis] - 1, 1)
        tensor = torch.cat([first] * before + [tensor] + [last] * after, dim=axis)
    return tensor


def normalize(cell: Tensor, normalization: Normalization | None) -> Tensor:
    """Return Norm(C_t), [B, P.., M]: by channel, by layer or not at all."""
    if normalization is None:
        return cell
    shape = cell.shape[-1:] if normalization.kind == "channel" else cell.shape[1:]
    standardized = F.layer_norm(cell, shape, eps=NORMALIZATION_EPSILON)
    return standardized * normalization.gain + normalization.bias
