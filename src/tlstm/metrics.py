"""What is measured of a model: the accuracy of its answers, and the samples it took."""

import math

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

NO_ANSWER = -100  # the target at positions that are not part of the answer


def answer_targets(targets: Tensor, answer: Tensor) -> Tensor:
    """The targets [B, T] with `NO_ANSWER` wherever `answer` [B, T] is False."""
    return targets.masked_fill(~answer, NO_ANSWER)


def answer_metrics(symbols: int) -> MetricCollection:
    """Accuracy per symbol and mean loss, over the positions of the answer.

    Args:
        symbols: number of symbols to choose from.
    """
    accuracy = MulticlassAccuracy(
        symbols, average="micro", ignore_index=NO_ANSWER, validate_args=False
    )
    # By default NaN is left out of the mean, and a run that diverges in part would go on
    loss = MeanMetric(nan_strategy=math.nan)
    return MetricCollection({"accuracy": accuracy, "loss": loss}, compute_groups=False)


class SamplesToThreshold(Metric):
    """Training samples seen when the accuracy first passed a threshold ("# Samp." of Table 2).

    Its state goes into checkpoints, so that a run that goes on keeps what it reached before.

    Args:
        threshold: the accuracy to pass, from 0 to 1.
    """

    full_state_update = False
    samples: Tensor

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.add_state(
            "samples", torch.tensor(-1, dtype=torch.long), dist_reduce_fx="max", persistent=True
        )

    def update(self, accuracy: Tensor | float, samples: int) -> None:
        """Take in an accuracy and the training samples seen before it was measured."""
        if self.reached is None and accuracy > self.threshold:
            self.samples.fill_(samples)

    def compute(self) -> Tensor:
        """The number of samples, or −1 while the threshold has not been passed."""
        return self.samples

    @property
    def reached(self) -> int | None:
        """The number of samples, or None while the threshold has not been passed."""
        return None if self.samples < 0 else int(self.samples)
