"""The hidden convolution of a timestep and its gradients, part by part; see `parts`.

Dimension letters of this file:
    n       timesteps
    B       examples
    P..     the location axes
    K..     the kernel's axes
    G.., R..  the locations and the taps of a part; G and R their numbers
    M, O    channels before and after the convolution
"""

import torch
from torch import Tensor

from tlstm.ops.eager.blocks import Part, moves
from tlstm.ops.matmul import accumulate, multiply, product
from tlstm.ops.shapes import Sizes


class Reading:
    """A part of the convolution, forward.

    Args:
        part: its locations and taps.
        sizes: the call's.
        weight: Wʰ, [O, M, K..].
        bias: bʰ, [O].
        padded: H with its padding, of the timesteps that are kept, [n, B, (P+K−1).., M].
        activations: A of the timesteps that are kept, [n, B, P.., O].
    """

    def __init__(
        self,
        part: Part,
        sizes: Sizes,
        weight: Tensor,
        bias: Tensor,
        padded: Tensor,
        activations: Tensor,
    ) -> None:
        self.weight = matrix(part.of_weight(weight)).to(padded.dtype).T  # [R·M, O]
        self.bias = bias
        self.sources = part.of_padded(padded, sizes).unbind(0)
        self.targets = part.of_locations(activations).unbind(0)
        self.read = padded.new_empty(self.sources[0].shape)  # [B, G.., R.., M]

    def __call__(self, now: int, slot: int) -> None:
        """Write the activations of a timestep from the state before it."""
        self.read.copy_(self.sources[now])
        read = self.read.view(-1, len(self.weight))  # [B·G, R·M]
        multiply(read, self.weight, self.bias, self.targets[slot])


class ReadingBackward:
    """The same part backward: from activations to the locations and taps that they read by.

    Args:
        part: its locations and taps.
        sizes: the call's.
        weight: Wʰ, [O, M, K..].
        of_activations: the gradient of A of some timesteps, [n, B, P.., O].
        of_hidden: where the gradient of H is added, [B, P.., M].

    Attributes:
        sum: the gradient of its taps, summed over the timesteps, [O, R·M].
    """

    def __init__(
        self, part: Part, sizes: Sizes, weight: Tensor, of_activations: Tensor, of_hidden: Tensor
    ) -> None:
        self.part, self.sizes = part, sizes
        self.weight = matrix(part.of_weight(weight)).to(of_activations.dtype)  # [O, R·M]
        self.sum = torch.zeros_like(self.weight, dtype=of_hidden.dtype)
        self.grads = part.of_locations(of_activations)  # [n, B, G.., O]
        self.apart = not self.grads.is_contiguous()
        self.rows = self.grads.new_empty(self.grads.shape) if self.apart else self.grads
        self.columns = self.rows.new_empty([len(weight), self.rows[..., 0].numel()])  # [O, n·B·G]
        self.read = self.rows.new_empty([*self.rows.shape[:-1], self.weight.shape[1]])
        spread = [len(each) for each in (*part.locations, *part.taps)]
        self.spread_shape = [sizes.batch_size, *spread, sizes.channels]
        self.moves = [
            (of_hidden[:, *read], (slice(None), *readers)) for read, readers in moves(part, sizes)
        ]

    def __call__(self, slot: int) -> None:
        """Add the gradient of H that the activations of one of the timesteps give."""
        rows = self.rows[slot]
        if self.apart:
            rows.copy_(self.grads[slot])
        grads = rows.view(-1, len(self.weight))  # [B·G, O]
        spread = product(grads, self.weight, None, self.sum.dtype)
        spread = spread.view(self.spread_shape)  # [B, G.., R.., M]
        for target, readers in self.moves:
            target.add_(spread[readers])

    def sum_up(self, padded: Tensor) -> None:
        """Take in the gradients of as many timesteps as there are in H, [n, B, (P+K−1).., M]."""
        source = self.part.of_padded(padded, self.sizes)  # [n, B, G.., R.., M]
        read = self.read[: len(padded)]
        read.view(source.shape).copy_(source)
        rows = self.rows[: len(padded)].flatten(0, -2)  # [n·B·G, O]
        columns = self.columns.flatten()[: rows.numel()].view(-1, len(rows))
        accumulate(self.sum, columns.copy_(rows.T), read.flatten(0, -2))

    def add_gradient(self, of_weight: Tensor) -> None:
        """Add the gradient of the taps to that of Wʰ, [O, M, K..]."""
        taps = self.part.of_weight(of_weight)  # [O, M, R..]
        taps += self.sum.view(len(self.sum), *taps.shape[2:], -1).movedim(-1, 1)


def matrix(weight: Tensor) -> Tensor:
    """Taps of Wʰ, [O, M, R..], as the matrix of a product with what they read, [O, R·M]."""
    return weight.movedim(1, -1).flatten(1)
