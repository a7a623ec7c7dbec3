"""The ways to draw the training samples of a generated task, where not uniformly [ours].

Validation and test samples are always uniform. As long as training digits are uniform, a digit of
a sum is independent of each operand alone, as in parity. A skewed digit tells of the sum by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from tlstm.utils import at_least, finite, share

Floats = npt.NDArray[np.float64]
OperandForm = Literal["uniform", "padded", "log_uniform"]

LEAST_SKEW = 1e-9  # as good as uniform, and no division by zero
BELOW_ONE = 1 - 2.0**-53  # the largest quantile: 64 random bits may be rounded to 1


@dataclass(frozen=True)
class Sampling:
    """The way in which training samples are drawn; the files of `conf/sampling` are its settings.

    Args:
        skew: σ. The values k = 0, 1, .. of a sample's choices are drawn with p(k) ∝ exp(−s·k), with
            s uniform between 0 and σ for each sample; 0: uniform choices.
        skew_samples: training samples over which σ goes down to 0, from one to the next by as much;
            0: it does not go down by the samples.
        skew_accuracy: the accuracy of the last validation at which σ is 0, and before in proportion
            to what is missing; 0: it does not go down by the accuracy.
        distinct_samples: training reads so many samples again and again; 0: each once.
        operands: of addition: "uniform" numbers of n digits; "padded" numbers of 1 to n digits with
            zeros before them, each length as likely; "log_uniform" numbers from 1 on, padded too.

    Raises:
        ValueError: an argument is out of its range; the message names it.
    """

    skew: float = 0.0
    skew_samples: int = 0
    skew_accuracy: float = 0.0
    distinct_samples: int = 0
    operands: OperandForm = "uniform"

    def __post_init__(self) -> None:
        if finite("sampling.skew", self.skew) < 0:
            raise ValueError(f"sampling.skew must be 0 or more, got {self.skew}")
        at_least("sampling.skew_samples", self.skew_samples, 0)
        share("sampling.skew_accuracy", self.skew_accuracy)
        at_least("sampling.distinct_samples", self.distinct_samples, 0)
        if self.operands not in get_args(OperandForm):
            words = ", ".join(get_args(OperandForm))
            raise ValueError(f"sampling.operands must be one of {words}, got {self.operands!r}")

    def content(self, index: int) -> int:
        """Return the index of the sample that is read at an index."""
        return index % self.distinct_samples if self.distinct_samples else index

    def skews(self, indices: Sequence[int], accuracy: float) -> Floats:
        """Return σ at each index [B], after a validation with this accuracy."""
        skews = np.full(len(indices), float(self.skew))
        if self.skew_samples:
            skews *= np.clip(1 - np.array(indices, dtype=float) / self.skew_samples, 0, None)
        if self.skew_accuracy:
            skews *= max(0.0, 1 - accuracy / self.skew_accuracy)
        return skews


UNIFORM = Sampling()


def skewed(
    uniform: Floats, radices: npt.NDArray[np.uint64], skews: Floats
) -> npt.NDArray[np.int64]:
    """Return choices k in 0..radix−1 with p(k) ∝ exp(−s·k), from uniform numbers [B, radices].

    Args:
        uniform: from 0 to 1, [B, n].
        radices: number of values of each choice, [n].
        skews: s of each row, [B].
    """
    s = np.maximum(skews, LEAST_SKEW)[:, np.newaxis]
    uniform = np.minimum(uniform, BELOW_ONE)
    # P(K < k) = (1 − exp(−s·k)) / (1 − exp(−s·radix)), solved for k
    inverse = -np.log1p(uniform * np.expm1(-s * radices)) / s
    return np.minimum(np.floor(inverse), radices - 1.0).astype(np.int64)
