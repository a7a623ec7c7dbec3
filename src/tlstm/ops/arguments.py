"""What is learnt, and what the backward pass gives, in the order of the operator's arguments."""

from typing import NamedTuple

from torch import Tensor


class Weights(NamedTuple):
    """What is learnt.

    Attributes:
        hidden: Wʰ, [O, M, K..].
        bias: bʰ, [O].
        gain: Γ, [P.., M] or [M]; None without normalization.
        shift: B, of the same shape.
    """

    hidden: Tensor
    bias: Tensor
    gain: Tensor | None
    shift: Tensor | None


class Gradients(NamedTuple):
    """Of the operator's arguments, None for those that are not there."""

    projected: Tensor
    hidden: Tensor
    cell: Tensor | None
    weight: Tensor
    bias: Tensor
    gain: Tensor | None
    shift: Tensor | None
