"""The LightningModule: a network, its loss over the loss mask, and its metrics."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from lightning import LightningModule
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torchmetrics import MetricCollection

from tlstm.tasks.base import Batch
from tlstm.training.cuda_graph import GraphedStep
from tlstm.training.metrics import (
    IGNORE_INDEX,
    PositionAccuracy,
    SamplesToThreshold,
    masked_targets,
    token_metrics,
    update_token_metrics,
)
from tlstm.training.network import SequenceNetwork
from tlstm.training.optimizers import device_options, make_optimizer

LOGGED_STEPS = 50  # optimizer steps from one logged training loss to the next
STEPS_COUNTED = "epoch_loop.manual_optimization.optim_step_progress"


class SequenceModule(LightningModule):
    """Training by the negative log-likelihood over the loss mask [ours].

    The optimization is manual in Lightning's sense, so that one step of Lightning's loop can make
    many optimizer steps, each a single launch on a GPU.

    Args:
        network: tokens or features in, logits out.
        learning_rate: 0.001 in the paper.
        threshold: the validation accuracy that counts as solved.
        batch_size: training samples of all devices together per step.
        description: the network in plain values, kept in every checkpoint to refuse those of
            another network.
        gradient_clip: largest norm of the gradients of all weights together; 0 for no limit.
        warmup_samples: training samples over which the learning rate rises, from step to step by as
            much, to its whole; 0 begins with the whole.
        loss: "answer" for the mean over the loss mask, "all" for that over every position, "sum"
            for the sum over the loss mask, divided by the samples.
        optimizer: "adam" [paper], "rmsprop" or "sgd".
        momentum: of the last two.
        rate_decay: what the learning rate is multiplied by each time that it falls.
        answer_positions: timesteps at which validation measures one by one; None for none.

    Attributes:
        captured: True where optimizer steps replay from a CUDA graph.
        rate_factor: by which the learning rate has fallen so far.
        selected_by: "accuracy" if the best validation has the highest accuracy, "loss" if it has
            the lowest loss.
        checkpoint_parts: what a checkpoint holds beside Lightning's own.
    """

    captured = False
    rate_factor = 1.0
    checkpoint_parts = frozenset({"description"})
    selected_by: Literal["accuracy", "loss"] = "accuracy"

    def __init__(
        self,
        network: SequenceNetwork,
        learning_rate: float,
        threshold: float,
        batch_size: int,
        description: dict[str, Any],
        gradient_clip: float = 0.0,
        warmup_samples: int = 0,
        loss: Literal["answer", "all", "sum"] = "answer",
        optimizer: str = "adam",
        momentum: float = 0.0,
        rate_decay: float = 1.0,
        answer_positions: range | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.description = description
        self.gradient_clip = gradient_clip
        self.warmup_samples = warmup_samples
        self.loss_kind = loss
        self.optimizer_kind = optimizer
        self.momentum = momentum
        self.rate_decay = rate_decay
        self.validation_metrics = token_metrics(network.head.out_features)
        self.test_metrics = token_metrics(network.head.out_features)
        self.position_accuracy = PositionAccuracy(answer_positions) if answer_positions else None
        self.position_accuracies: list[float] = []  # of the last validation
        self.samples_to_threshold = SamplesToThreshold(threshold)
        self._graphed_step: GraphedStep | None = None
        self._losses: list[tuple[int, Tensor]] = []
        self._last_rate = learning_rate
        self._random_states: list[Tensor] = []

    @property
    def samples_seen(self) -> int:
        """Training samples of all optimizer steps so far, over all devices."""
        return self.global_step * self.batch_size

    @staticmethod
    def metrics_of_loss(loss: float) -> dict[str, float]:
        """Return further metrics that follow from the loss; none here."""
        return {}

    def loss(self, batch: Batch) -> Tensor:
        """Compute the negative log-likelihood of a batch."""
        targets = batch.targets
        if self.loss_kind != "all":
            targets = masked_targets(targets, batch.loss_mask)
        return self._loss(self.network(batch.inputs), targets)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Check the tokens on the host, since a CUDA graph cannot."""
        if self.captured and self.network.is_discrete:
            self.network.check_tokens(batch.inputs)
        return batch

    def training_step(self, batch: Batch, batch_index: int) -> None:
        """Make an optimizer step on each of the batches that the loader concatenated."""
        size = self.batch_size // self.trainer.world_size
        for parts in zip(*(part.split(size) for part in batch), strict=True):
            loss = self.learn(Batch(*parts))
            if self.global_step % LOGGED_STEPS == 0:
                self._losses.append((self.global_step, loss.clone()))

    def learn(self, batch: Batch) -> Tensor:
        """Make one optimizer step.

        Returns:
            The loss before the step, in a tensor that the next step may overwrite.
        """
        optimizer = cast(Optimizer, self.optimizers(use_pl_optimizer=not self.captured))
        self._set_rate(optimizer)
        if not self.captured:
            return self._learn(batch, optimizer, self.manual_backward)
        if self._graphed_step is None:
            self._graphed_step = GraphedStep(
                lambda fixed: self._learn(fixed, optimizer, Tensor.backward),
                optimizer,
                batch,
                self.recurrent_state(batch),
            )
        loss = self._graphed_step(batch)
        self._count_step()
        return loss

    def recurrent_state(self, batch: Batch) -> Sequence[Tensor]:
        """Return the tensors that `loss` changes in place from batch to batch, such as averages."""
        return [*self.network.buffers()]

    def busy_seconds(self) -> float | None:
        """Return the GPU seconds of captured steps since the last call; None without such steps.

        This waits for the last step.
        """
        return self._graphed_step.graph.busy_seconds() if self._graphed_step else None

    def on_train_start(self) -> None:
        """Continue with the random numbers of the checkpoint, on a device that it has some of.

        Devices begin with different ones, so that their dropout masks are different.
        """
        rank = self.global_rank
        states = [state[rank] for state in self._random_states if rank < len(state)]
        if states:
            torch.set_rng_state(states[0])
        if states[1:] and self.device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self.device)
        if rank and not states:
            torch.manual_seed(torch.initial_seed() + rank)

    def on_train_end(self) -> None:
        """Free the memory of the captured step."""
        self._graphed_step = None

    def on_validation_start(self) -> None:
        """Log the training losses, where reading them delays no training step."""
        if not self._losses:
            return
        steps, losses = zip(*self._losses, strict=True)
        self._losses.clear()
        # The loss masks of all devices have equally many positions
        means = self.trainer.strategy.reduce(torch.stack(losses), reduce_op="mean")
        for step, loss in zip(steps, means.tolist(), strict=True):
            metrics = {"training/loss": loss, "samples": float(step * self.batch_size)}
            for logger in self.loggers:
                logger.log_metrics(metrics, step)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Add a batch of validation samples to the metrics."""
        self._evaluate(batch, self.validation_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics and note the samples if the task is solved."""
        metrics = self._computed(self.validation_metrics)
        self.samples_to_threshold.update(metrics["accuracy"], self.samples_seen)
        self.log_dict({f"validation/{name}": value for name, value in metrics.items()})
        self._log_positions()
        self.log("samples", float(self.samples_seen))
        self.log("step", float(self.global_step))

    def _log_positions(self) -> None:
        """Log the accuracy at each position of the answer, from 1 on."""
        if self.position_accuracy is not None:
            self.position_accuracies = self.position_accuracy.compute().tolist()
            self.position_accuracy.reset()
            named = enumerate(self.position_accuracies, start=1)
            self.log_dict({f"positions/{number}": accuracy for number, accuracy in named})

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Add a batch of test samples to the metrics."""
        self._evaluate(batch, self.test_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        metrics = self._computed(self.test_metrics)
        self.log_dict({f"test/{name}": value for name, value in metrics.items()})

    def configure_optimizers(self) -> Optimizer:
        """Make the optimizer."""
        rate = self._rate(self.device)
        return make_optimizer(
            self.optimizer_kind, self.parameters(), rate, self.momentum, self.device
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the network's description, and the random generators of all devices."""
        checkpoint["description"] = self.description
        states = [torch.get_rng_state()]
        if self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        checkpoint["random_states"] = [self._of_each_device(state).cpu() for state in states]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adapt the optimizer and the step counter to this run's device."""
        self._random_states = checkpoint.get("random_states", [])  # which earlier versions lack
        # Where Lightning counts the steps of manual optimization
        counted = checkpoint["loops"]["fit_loop"][STEPS_COUNTED]["total"]
        counted["ready"] = counted["completed"] = checkpoint["global_step"]
        device = self.trainer.strategy.root_device
        for state in checkpoint["optimizer_states"]:
            for group in state["param_groups"]:
                group |= {"lr": self._rate(device), **device_options(self.optimizer_kind, device)}

    def _of_each_device(self, value: Tensor) -> Tensor:
        """Return the values of all devices, [devices, ..]."""
        if self.trainer.world_size == 1:
            return value.unsqueeze(0)
        return cast(Tensor, self.all_gather(value))

    def _rate(self, device: torch.device) -> float | Tensor:
        """Return the whole learning rate: a tensor where it changes, for CUDA graphs."""
        changes = self.warmup_samples or self.rate_decay < 1
        return torch.tensor(self.learning_rate, device=device) if changes else self.learning_rate

    def _set_rate(self, optimizer: Optimizer) -> None:
        """Set the learning rate of the next step, where it is not that of the last one."""
        rate = self.learning_rate * self.rate_factor
        if self.warmup_samples:
            rate *= min(1.0, (self.samples_seen + self.batch_size) / self.warmup_samples)
        if rate != self._last_rate:
            self._last_rate = rate
            for group in optimizer.param_groups:
                group["lr"].fill_(rate)

    def _learn(
        self, batch: Batch, optimizer: Optimizer, backward: Callable[[Tensor], None]
    ) -> Tensor:
        optimizer.zero_grad()
        loss = self.loss(batch)
        with torch.autocast(loss.device.type, enabled=False):  # autocast is for the forward pass
            backward(loss)
            if self.gradient_clip:
                clip_grad_norm_(self.parameters(), self.gradient_clip)
            optimizer.step()
        return loss.detach()

    def _count_step(self) -> None:
        """Count a step for Lightning, which only counts those of its own optimizers."""
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        of_sum = self.loss_kind == "sum"
        loss = F.cross_entropy(
            logits.flatten(0, 1),
            targets.flatten(),
            ignore_index=IGNORE_INDEX,
            reduction="sum" if of_sum else "mean",
        )
        return loss / len(targets) if of_sum else loss

    def _evaluate(self, batch: Batch, metrics: MetricCollection) -> None:
        logits = self.network(batch.inputs)
        targets = masked_targets(batch.targets, batch.loss_mask)
        update_token_metrics(metrics, logits, targets)
        if self.position_accuracy is not None and metrics is self.validation_metrics:
            self.position_accuracy.update(logits, targets)

    def _computed(self, metrics: MetricCollection) -> dict[str, Any]:
        """Return the values of the metrics and reset them."""
        values: dict[str, Any] = metrics.compute()
        metrics.reset()
        return values | self.metrics_of_loss(values["loss"])
