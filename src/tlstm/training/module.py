"""The LightningModule: a network, its loss over the answer, and its metrics."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from lightning import LightningModule
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam, Optimizer
from torchmetrics import MetricCollection

from tlstm.tasks.base import Batch
from tlstm.training.cuda_graph import CapturedStep
from tlstm.training.metrics import (
    NO_ANSWER,
    SamplesToThreshold,
    answer_metrics,
    answer_targets,
    update_answer_metrics,
)
from tlstm.training.network import SequenceNetwork

LOGGED_STEPS = 50  # optimizer steps from one logged training loss to the next
STEPS_COUNTED = "epoch_loop.manual_optimization.optim_step_progress"


class SequenceModule(LightningModule):
    """Trains a network to answer: negative log-likelihood over the answer [ours], Adam [paper].

    The optimization is manual in Lightning's sense, so that one step of Lightning's loop can make
    many optimizer steps, each of them a single launch on a GPU.

    Args:
        network: symbols or features in, logits out.
        learning_rate: of Adam; 0.001 in the paper.
        threshold: the validation accuracy that counts as solved.
        batch_size: training samples of all devices together per step.
        description: what the network is, kept in every checkpoint so that it can be told from
            another's; plain values only.
        gradient_clip: the norm that the gradients of all weights together are scaled down to
            where theirs is larger; 0 leaves them as they are.
        warm_up: training samples over which the learning rate rises, from step to step by as
            much, to its whole; 0 begins with the whole.
        loss_over_all: whether the loss is over every position, and not over the answer alone.

    Attributes:
        captured: whether optimizer steps replay from a CUDA graph.
        selected_by: what the best validation has the most of, "accuracy", or the least, "loss".
    """

    captured = False
    selected_by: Literal["accuracy", "loss"] = "accuracy"

    def __init__(
        self,
        network: SequenceNetwork,
        learning_rate: float,
        threshold: float,
        batch_size: int,
        description: dict[str, Any],
        gradient_clip: float = 0.0,
        warm_up: int = 0,
        loss_over_all: bool = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.description = description
        self.gradient_clip = gradient_clip
        self.warm_up = warm_up
        self.loss_over_all = loss_over_all
        self.validation_metrics = answer_metrics(network.head.out_features)
        self.test_metrics = answer_metrics(network.head.out_features)
        self.samples_to_threshold = SamplesToThreshold(threshold)
        self._captured_step: CapturedStep | None = None
        self._losses: list[tuple[int, Tensor]] = []

    @property
    def samples_seen(self) -> int:
        """Training samples that the weights have learnt from, over all devices."""
        return self.global_step * self.batch_size

    @staticmethod
    def metrics_of_loss(loss: float) -> dict[str, float]:
        """Further metrics, which follow from the loss; none here."""
        return {}

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log-likelihood of the symbols of the answer, or of all [ours]."""
        targets = batch.targets
        if not self.loss_over_all:
            targets = answer_targets(targets, batch.answer)
        return self._loss(self.network(batch.inputs), targets)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Check the symbols on the host, where a CUDA graph cannot."""
        if self.captured and self.network.reads_symbols:
            self.network.check_symbols(batch.inputs)
        return batch

    def training_step(self, batch: Batch, batch_index: int) -> None:
        """An optimizer step on each of the batches that have come as one."""
        size = self.batch_size // self.trainer.world_size
        for parts in zip(*(part.split(size) for part in batch), strict=True):
            loss = self.learn(Batch(*parts))
            if self.global_step % LOGGED_STEPS == 0:
                self._losses.append((self.global_step, loss.clone()))

    def learn(self, batch: Batch) -> Tensor:
        """One optimizer step.

        Returns:
            The loss before it, which the next step may overwrite.
        """
        optimizer = cast(Optimizer, self.optimizers(use_pl_optimizer=not self.captured))
        self._warm(optimizer)
        if not self.captured:
            return self._learn(batch, optimizer, self.manual_backward)
        if self._captured_step is None:
            self._captured_step = CapturedStep(
                lambda fixed: self._learn(fixed, optimizer, Tensor.backward),
                optimizer,
                batch,
                self.carried(batch),
            )
        loss = self._captured_step(batch)
        self._count_step()
        return loss

    def carried(self, batch: Batch) -> Sequence[Tensor]:
        """What `loss` changes, in place, from one batch like this to the next; nothing here."""
        return ()

    def busy_seconds(self) -> float | None:
        """Seconds of the GPU that captured steps took since last asked; None where there are none.

        This waits for the last of them.
        """
        return self._captured_step.recording.busy_seconds() if self._captured_step else None

    def on_train_end(self) -> None:
        """Give back the memory of the captured step."""
        self._captured_step = None

    def on_validation_start(self) -> None:
        """Log the training losses, now that nobody has to wait for them."""
        if not self._losses:
            return
        steps, losses = zip(*self._losses, strict=True)
        self._losses.clear()
        # Each device has as many positions of the answer as any other
        means = self.trainer.strategy.reduce(torch.stack(losses), reduce_op="mean")
        for step, loss in zip(steps, means.tolist(), strict=True):
            metrics = {"training/loss": loss, "samples": float(step * self.batch_size)}
            for logger in self.loggers:
                logger.log_metrics(metrics, step)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Take a batch of validation samples into account."""
        self._evaluate(batch, self.validation_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics and note whether the task is solved."""
        metrics = self._computed(self.validation_metrics)
        self.samples_to_threshold.update(metrics["accuracy"], self.samples_seen)
        self.log_dict({f"validation/{name}": value for name, value in metrics.items()})
        self.log("samples", float(self.samples_seen))
        self.log("step", float(self.global_step))

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Take a batch of test samples into account."""
        self._evaluate(batch, self.test_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        metrics = self._computed(self.test_metrics)
        self.log_dict({f"test/{name}": value for name, value in metrics.items()})

    def configure_optimizers(self) -> Optimizer:
        """Adam with torch's other defaults."""
        return Adam(self.parameters(), lr=self._rate(self.device), **adam_options(self.device))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down whose checkpoint it is."""
        checkpoint["description"] = self.description

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with this run's device and way to step, whatever those of the checkpoint were."""
        # Where Lightning counts the steps of manual optimization
        counted = checkpoint["loops"]["fit_loop"][STEPS_COUNTED]["total"]
        counted["ready"] = counted["completed"] = checkpoint["global_step"]
        device = self.trainer.strategy.root_device
        for state in checkpoint["optimizer_states"]:
            for group in state["param_groups"]:
                group |= {"lr": self._rate(device), **adam_options(device)}

    def _rate(self, device: torch.device) -> float | Tensor:
        """The learning rate as Adam takes it: recorded steps read one that changes where it is."""
        rate = self.learning_rate
        return torch.tensor(rate, device=device) if self.warm_up else rate

    def _warm(self, optimizer: Optimizer) -> None:
        """Set the learning rate of the step to come."""
        if self.warm_up and self.samples_seen <= self.warm_up:
            part = min(1.0, (self.samples_seen + self.batch_size) / self.warm_up)
            for group in optimizer.param_groups:
                group["lr"].fill_(self.learning_rate * part)

    def _learn(
        self, batch: Batch, optimizer: Optimizer, backward: Callable[[Tensor], None]
    ) -> Tensor:
        optimizer.zero_grad()
        loss = self.loss(batch)
        with torch.autocast(loss.device.type, enabled=False):  # which is for the forward pass alone
            backward(loss)
            if self.gradient_clip:
                clip_grad_norm_(self.parameters(), self.gradient_clip)
            optimizer.step()
        return loss.detach()

    def _count_step(self) -> None:
        """Tell Lightning, whose optimizers count by themselves, of a step without them."""
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=NO_ANSWER)

    def _evaluate(self, batch: Batch, metrics: MetricCollection) -> None:
        targets = answer_targets(batch.targets, batch.answer)
        update_answer_metrics(metrics, self.network(batch.inputs), targets)

    def _computed(self, metrics: MetricCollection) -> dict[str, Any]:
        """What metrics have come to, which then begin anew."""
        values: dict[str, Any] = metrics.compute()
        metrics.reset()
        return values | self.metrics_of_loss(values["loss"])


def adam_options(device: torch.device) -> dict[str, Any]:
    """What of Adam depends on the device: on a GPU one kernel, which a CUDA graph can hold."""
    on_gpu = device.type == "cuda"
    return {"capturable": on_gpu, "fused": True if on_gpu else None}
