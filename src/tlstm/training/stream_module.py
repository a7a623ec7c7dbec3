"""The LightningModule of streams: text and state that continue from batch to batch.

A batch is the next chunk of every stream. The network spends no timestep on its delay: the first
outputs of a chunk belong to the last inputs of the chunk before, and their targets are kept until
then. Gradients go back to the beginning of a chunk: truncated back-propagation.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from tlstm.layers.recurrent import State
from tlstm.tasks.base import Batch
from tlstm.training.metrics import (
    IGNORE_INDEX,
    bits_per_character,
    masked_targets,
    update_token_metrics,
)
from tlstm.training.module import SequenceModule
from tlstm.training.network import SequenceNetwork


class Streams:
    """The state of parallel streams: the core's, zero at first, and the pending targets.

    Its tensors are changed in place, as a CUDA graph requires.

    Args:
        network: reads the streams.
        number: number of streams, B.
    """

    def __init__(self, network: SequenceNetwork, number: int) -> None:
        core = network.core
        self._network = network
        self._state = parts_of(core.initial_state(number))
        # Targets of inputs whose outputs the core has not written yet
        self._pending = torch.full(
            (number, core.delay), IGNORE_INDEX, dtype=torch.long, device=self._state[0].device
        )

    @property
    def parts(self) -> list[Tensor]:
        """Views of the whole state, each [B, ..]."""
        axis = self._network.core.state_batch_axis
        return [*(part.movedim(axis, 0) for part in self._state), self._pending]

    def reset(self) -> None:
        """Return to the state at the beginning of the streams."""
        for part in self._state:
            part.zero_()
        self._pending.fill_(IGNORE_INDEX)

    def read(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Read the next chunk.

        Args:
            inputs: [B, T].
            targets: [B, T] of these inputs, `IGNORE_INDEX` outside the loss mask.

        Returns:
            Logits [B, T, output_size] and the targets [B, T] that belong to them.
        """
        # A copy: the state is overwritten before the backward pass reads it
        state = tuple(part.clone() for part in self._state)
        logits, after = self._network.read(inputs, state if len(state) > 1 else state[0])
        for part, new in zip(self._state, parts_of(after), strict=True):
            part.copy_(new.detach())
        due = torch.cat([self._pending, targets], dim=1)
        self._pending.copy_(due[:, targets.shape[1] :])
        return logits, due[:, : targets.shape[1]]

    def flush(self) -> tuple[Tensor, Tensor]:
        """Compute the outputs of the pending targets, by reading token 0 for `delay` timesteps.

        The token matters only with layer normalization, which is not causal [ours].

        Returns:
            As for `read`, with T = delay, which must not be 0.
        """
        return self.read(
            torch.zeros_like(self._pending), torch.full_like(self._pending, IGNORE_INDEX)
        )


class StreamModule(SequenceModule):
    """Training on streams; validation and test read streams of their own.

    Checkpoints keep the recurrent state of all devices, so that a resumed run equals an
    uninterrupted one, on any number of devices.

    Args:
        arguments: positional arguments of `SequenceModule`; `batch_size` is the number of streams
            of all devices together.
        samples_per_pass: training samples after which every stream starts again.
        settings: keyword arguments of `SequenceModule`.
    """

    selected_by = "loss"
    checkpoint_parts = frozenset({"description", "streams"})

    def __init__(self, *arguments: Any, samples_per_pass: int, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.samples_per_pass = samples_per_pass
        self._streams: Streams | None = None  # of training
        self._evaluated: Streams | None = None
        self._from_checkpoint: list[Tensor] | None = None

    @staticmethod
    def metrics_of_loss(loss: float) -> dict[str, float]:
        """Return the bits per character."""
        return {"bits_per_character": bits_per_character(loss)}

    def loss(self, batch: Batch) -> Tensor:
        """Compute the negative log-likelihood of a chunk's outputs and advance the streams."""
        targets = masked_targets(batch.targets, batch.loss_mask)
        return self._loss(*self._training_streams(batch).read(batch.inputs, targets))

    def learn(self, batch: Batch) -> Tensor:
        """Make one optimizer step; the streams start again at the end of the text."""
        streams = self._training_streams(batch)
        if self.samples_seen % self.samples_per_pass == 0:
            streams.reset()
        return super().learn(batch)

    def recurrent_state(self, batch: Batch) -> Sequence[Tensor]:
        """Return the state of the training streams, and what else `loss` changes."""
        return [*super().recurrent_state(batch), *self._training_streams(batch).parts]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of the training streams of all devices, [B, ..] each."""
        super().on_save_checkpoint(checkpoint)
        if self._streams is not None:
            checkpoint["streams"] = [self._of_all_devices(part) for part in self._streams.parts]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the state for the training streams, which are made with the first batch."""
        super().on_load_checkpoint(checkpoint)
        self._from_checkpoint = checkpoint.get("streams")

    def _training_streams(self, batch: Batch) -> Streams:
        if self._streams is None:
            self._streams = Streams(self.network, len(batch.inputs))
            if self._from_checkpoint is not None:
                self._restore(self._streams, self._from_checkpoint)
        return self._streams

    def _restore(self, streams: Streams, of_all_devices: list[Tensor]) -> None:
        for part, whole in zip(streams.parts, of_all_devices, strict=True):
            # A batch of all devices is dealt out sample by sample
            part.copy_(whole[self.global_rank :: self.trainer.world_size])

    def _of_all_devices(self, part: Tensor) -> Tensor:
        return self._of_each_device(part.contiguous()).transpose(0, 1).flatten(0, 1)

    def _evaluate(self, batch: Batch, metrics: MetricCollection) -> None:
        if self._evaluated is None:
            self._evaluated = Streams(self.network, len(batch.inputs))
        targets = masked_targets(batch.targets, batch.loss_mask)
        update_token_metrics(metrics, *self._evaluated.read(batch.inputs, targets))

    def _computed(self, metrics: MetricCollection) -> dict[str, Any]:
        if self._evaluated is not None and self.network.core.delay:
            with self.trainer.precision_plugin.val_step_context():
                update_token_metrics(metrics, *self._evaluated.flush())
        self._evaluated = None
        return super()._computed(metrics)


def parts_of(state: State) -> tuple[Tensor, ...]:
    """Return the tensors of a state, which may be a single one."""
    return (state,) if isinstance(state, Tensor) else state
