"""Metrics of a model: accuracy and loss over the loss mask, and samples to a threshold."""

import math

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

IGNORE_INDEX = -100  # the target at positions outside the loss mask


def masked_targets(targets: Tensor, loss_mask: Tensor) -> Tensor:
    """Replace targets [B, T] by `IGNORE_INDEX` wherever `loss_mask` [B, T] is False."""
    return targets.masked_fill(~loss_mask, IGNORE_INDEX)


def token_metrics(output_size: int) -> MetricCollection:
    """Make metrics of the accuracy per token and the mean loss.

    Args:
        output_size: number of tokens or classes to choose from.
    """
    accuracy = MulticlassAccuracy(
        output_size, average="micro", ignore_index=IGNORE_INDEX, validate_args=False
    )
    # By default the mean leaves NaN out, and a run that diverges in part would continue
    loss = MeanMetric(nan_strategy=math.nan)
    return MetricCollection({"accuracy": accuracy, "loss": loss}, compute_groups=False)


def update_token_metrics(metrics: MetricCollection, logits: Tensor, targets: Tensor) -> None:
    """Add a batch to the metrics.

    Args:
        metrics: made by `token_metrics`.
        logits: [B, T, output_size].
        targets: [B, T], `IGNORE_INDEX` at positions that do not count, possibly all.
    """
    flat_logits, flat_targets = logits.flatten(0, 1), targets.flatten()
    number = (flat_targets != IGNORE_INDEX).sum()
    total = F.cross_entropy(flat_logits, flat_targets, ignore_index=IGNORE_INDEX, reduction="sum")
    metrics["accuracy"].update(flat_logits, flat_targets)
    metrics["loss"].update(total / number.clamp(min=1), weight=number)


class PositionAccuracy(Metric):
    """The accuracy at each position of the answer, over samples whose answers lie at the same ones.

    Args:
        positions: timesteps of the answer.
    """

    full_state_update = False
    right: Tensor
    samples: Tensor

    def __init__(self, positions: range) -> None:
        super().__init__()
        self.positions = slice(positions.start, positions.stop)
        self.add_state("right", torch.zeros(len(positions)), dist_reduce_fx="sum")
        self.add_state("samples", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Add a batch: logits [B, T, output_size], targets [B, T]."""
        found = logits[:, self.positions].argmax(-1)
        self.right += (found == targets[:, self.positions]).sum(0)
        self.samples += len(targets)

    def compute(self) -> Tensor:
        """Return fractions, [positions]."""
        return self.right / self.samples.clamp(min=1)


def bits_per_character(loss: float) -> float:
    """Convert a loss from nats to bits per character (BPC)."""
    return loss / math.log(2)


class SamplesToThreshold(Metric):
    """Training samples seen when the accuracy first passed a threshold ("# Samp." of Table 2).

    Checkpoints keep its state, so that a resumed run keeps the number.

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
        """Add an accuracy and the training samples seen before its measurement."""
        if self.reached is None and accuracy > self.threshold:
            self.samples.fill_(samples)

    def compute(self) -> Tensor:
        """Return the number of samples, or −1 while the threshold has not been passed."""
        return self.samples

    @property
    def reached(self) -> int | None:
        """The number of samples, or None while the threshold has not been passed."""
        return None if self.samples < 0 else int(self.samples)
