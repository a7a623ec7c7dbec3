"""What is measured of a model: the accuracy of its answers, and the samples it took."""

import math

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
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


def update_answer_metrics(metrics: MetricCollection, logits: Tensor, targets: Tensor) -> None:
    """Take more answers into account.

    Args:
        metrics: as `answer_metrics` makes them.
        logits: [B, T, symbols].
        targets: [B, T], `NO_ANSWER` where there is none, which may be everywhere.
    """
    flat_logits, flat_targets = logits.flatten(0, 1), targets.flatten()
    number = (flat_targets != NO_ANSWER).sum()
    total = F.cross_entropy(flat_logits, flat_targets, ignore_index=NO_ANSWER, reduction="sum")
    metrics["accuracy"].update(flat_logits, flat_targets)
    metrics["loss"].update(total / number.clamp(min=1), weight=number)


def bits_per_character(loss: float) -> float:
    """A loss in nats per character, in bits per character (BPC)."""
    return loss / math.log(2)


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
