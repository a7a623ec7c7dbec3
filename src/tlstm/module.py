"""The LightningModule of the family: a network, its loss over the answer, and its metrics."""

from typing import Any

import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from lightning import LightningModule
from torch import Tensor
from torch.optim import Adam, Optimizer
from torchmetrics import MetricCollection

from tlstm.metrics import NO_ANSWER, SamplesToThreshold, answer_metrics, answer_targets
from tlstm.models.network import SequenceNetwork
from tlstm.tasks.generated import Batch


class SequenceModule(LightningModule):
    """Trains a network to answer: negative log-likelihood over the answer [ours], Adam [paper].

    Args:
        network: symbols in, logits out.
        learning_rate: of Adam; 0.001 in the paper.
        threshold: the validation accuracy that counts as solved.
        batch_size: training samples of all devices together per step.
        description: what the network is, kept in every checkpoint so that it can be told from
            another's; plain values only.
    """

    def __init__(
        self,
        network: SequenceNetwork,
        learning_rate: float,
        threshold: float,
        batch_size: int,
        description: dict[str, Any],
    ) -> None:
        super().__init__()
        self.network = network
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.description = description
        self.validation_metrics = answer_metrics(network.head.out_features)
        self.test_metrics = answer_metrics(network.head.out_features)
        self.samples_to_threshold = SamplesToThreshold(threshold)

    @property
    def samples_seen(self) -> int:
        """Training samples that the weights have learnt from, over all devices."""
        return self.global_step * self.batch_size

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log-likelihood of the symbols of the answer."""
        return self._loss(self.network(batch.inputs), answer_targets(batch.targets, batch.answer))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One optimizer step's loss."""
        loss = self.loss(batch)
        self.log("training/loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Take a batch of validation samples into account."""
        self._evaluate(batch, self.validation_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics and note whether the task is solved."""
        metrics = self.validation_metrics.compute()
        self.validation_metrics.reset()
        self.samples_to_threshold.update(metrics["accuracy"], self.samples_seen)
        self.log_dict({f"validation/{name}": value for name, value in metrics.items()})
        self.log("samples", float(self.samples_seen))

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Take a batch of test samples into account."""
        self._evaluate(batch, self.test_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        metrics = self.test_metrics.compute()
        self.test_metrics.reset()
        self.log_dict({f"test/{name}": value for name, value in metrics.items()})

    def configure_optimizers(self) -> Optimizer:
        """Adam with torch's other defaults."""
        return Adam(self.parameters(), lr=self.learning_rate)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down whose checkpoint it is."""
        checkpoint["description"] = self.description

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=NO_ANSWER)

    def _evaluate(self, batch: Batch, metrics: MetricCollection) -> None:
        logits = self.network(batch.inputs)
        targets = answer_targets(batch.targets, batch.answer)
        metrics["accuracy"].update(logits.flatten(0, 1), targets.flatten())
        metrics["loss"].update(self._loss(logits, targets), weight=batch.answer.sum())
