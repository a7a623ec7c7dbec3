"""The LightningModule of streams: text that goes on from batch to batch, and the state with it.

A batch is the next chunk of every stream. The network spends no timestep on its delay: the first
outputs of a chunk belong to the last characters of the chunk before, whose targets wait for them.
Gradients go back to the beginning of a chunk: truncated back-propagation.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from tlstm.layers.recurrent import State
from tlstm.tasks.base import Batch
from tlstm.training.metrics import (
    NO_ANSWER,
    answer_targets,
    bits_per_character,
    update_answer_metrics,
)
from tlstm.training.module import SequenceModule
from tlstm.training.network import SequenceNetwork


class Streams:
    """Where parallel streams have come to: zero state, and nothing due, at their beginning.

    Its tensors stay in their place and are changed there, as a CUDA graph needs it.

    Args:
        network: reads the streams.
        number: of streams, B.
    """

    def __init__(self, network: SequenceNetwork, number: int) -> None:
        core = network.core
        self._network = network
        self._state = parts_of(core.initial_state(number))
        # Targets of the inputs whose outputs are still to come
        self._due = torch.full(
            (number, core.delay), NO_ANSWER, dtype=torch.long, device=self._state[0].device
        )

    @property
    def parts(self) -> list[Tensor]:
        """Views of all that is carried from chunk to chunk, each [B, ..]."""
        axis = self._network.core.state_batch_axis
        return [*(part.movedim(axis, 0) for part in self._state), self._due]

    def begin_anew(self) -> None:
        """Back to the beginning."""
        for part in self._state:
            part.zero_()
        self._due.fill_(NO_ANSWER)

    def read(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Go on by a chunk.

        Args:
            inputs: [B, T].
            targets: [B, T] of these inputs, `NO_ANSWER` where nothing is answered.

        Returns:
            Logits [B, T, output_size], and the targets [B, T] that belong to them.
        """
        # Not the state itself, which is overwritten before the backward pass reads it
        state = tuple(part.clone() for part in self._state)
        logits, after = self._network.read(inputs, state if len(state) > 1 else state[0])
        for part, new in zip(self._state, parts_of(after), strict=True):
            part.copy_(new.detach())
        due = torch.cat([self._due, targets], dim=1)
        self._due.copy_(due[:, targets.shape[1] :])
        return logits, due[:, : targets.shape[1]]

    def flush(self) -> tuple[Tensor, Tensor]:
        """Bring out what is still due, by reading any symbol that often; nothing is due any more.

        What is read changes no output but with layer normalization, which is not causal [ours].

        Returns:
            As `read`, with T = delay, which must not be 0.
        """
        return self.read(torch.zeros_like(self._due), torch.full_like(self._due, NO_ANSWER))


class StreamModule(SequenceModule):
    """Trains a network on streams; validation and test read streams of their own.

    The carried state of all devices goes into checkpoints, so that a run that goes on, on however
    many devices, is the run that was never interrupted.

    Args:
        arguments: as `SequenceModule` has them, and so has it the settings; `batch_size` is the
            number of streams of all devices together.
        samples_per_pass: training samples after which every stream begins anew.
        settings: the rest of them.
    """

    selected_by = "loss"

    def __init__(self, *arguments: Any, samples_per_pass: int, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.samples_per_pass = samples_per_pass
        self._streams: Streams | None = None  # of training
        self._evaluated: Streams | None = None
        self._from_checkpoint: list[Tensor] | None = None

    @staticmethod
    def metrics_of_loss(loss: float) -> dict[str, float]:
        """The bits per character."""
        return {"bits_per_character": bits_per_character(loss)}

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log-likelihood of the symbols that are due; it carries the streams on."""
        targets = answer_targets(batch.targets, batch.answer)
        return self._loss(*self._training_streams(batch).read(batch.inputs, targets))

    def learn(self, batch: Batch) -> Tensor:
        """One optimizer step, as `SequenceModule.learn`; at the end of the text, from its start."""
        streams = self._training_streams(batch)
        if self.samples_seen % self.samples_per_pass == 0:
            streams.begin_anew()
        return super().learn(batch)

    def carried(self, batch: Batch) -> Sequence[Tensor]:
        """Where the training streams have come to."""
        return self._training_streams(batch).parts

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down where the training streams of all devices have come to, [B, ..] each."""
        super().on_save_checkpoint(checkpoint)
        if self._streams is not None:
            checkpoint["streams"] = [self._of_all_devices(part) for part in self._streams.parts]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from there."""
        super().on_load_checkpoint(checkpoint)
        self._from_checkpoint = checkpoint.get("streams")

    def _training_streams(self, batch: Batch) -> Streams:
        if self._streams is None:
            self._streams = Streams(self.network, len(batch.inputs))
            if self._from_checkpoint is not None:
                self._go_on(self._streams, self._from_checkpoint)
        return self._streams

    def _go_on(self, streams: Streams, of_all_devices: list[Tensor]) -> None:
        for part, whole in zip(streams.parts, of_all_devices, strict=True):
            # A batch of all devices is dealt out sample by sample
            part.copy_(whole[self.global_rank :: self.trainer.world_size])

    def _of_all_devices(self, part: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return part.contiguous()
        gathered = cast(Tensor, self.all_gather(part.contiguous()))  # [devices, B of each, ..]
        return gathered.transpose(0, 1).flatten(0, 1)

    def _evaluate(self, batch: Batch, metrics: MetricCollection) -> None:
        if self._evaluated is None:
            self._evaluated = Streams(self.network, len(batch.inputs))
        targets = answer_targets(batch.targets, batch.answer)
        update_answer_metrics(metrics, *self._evaluated.read(batch.inputs, targets))

    def _computed(self, metrics: MetricCollection) -> dict[str, Any]:
        if self._evaluated is not None and self.network.core.delay:
            with self.trainer.precision_plugin.val_step_context():
                update_answer_metrics(metrics, *self._evaluated.flush())
        self._evaluated = None
        return super()._computed(metrics)


def parts_of(state: State) -> tuple[Tensor, ...]:
    """The tensors of a state, which may be one."""
    return (state,) if isinstance(state, Tensor) else state
