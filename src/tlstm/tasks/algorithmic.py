"""Generated tasks: samples by random access and splits by content.

The paper generates its samples on the fly [paper]; what makes them repeatable is [ours]:

* Sample i depends on (seed, split, i) alone: it is drawn from a Philox stream with the seed and the
  split as key and i as counter. Workers, devices and restarts cannot change it.
* The content of a sample decides its split (see :func:`split_of`), so that no validation or test
  sample is ever trained on, whatever the seeds.
* Validation and test samples are the same for every seed; the seed chooses the training samples.
* Training never repeats: epoch e of the trainer reads samples e·samples_per_epoch and following.

All choices of a sample are uniform, unless `sampling` draws those of training otherwise.
"""

import hashlib
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import IntEnum
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tlstm.tasks.base import Batch, SequenceDataModule
from tlstm.tasks.sampling import UNIFORM, Sampling, skewed
from tlstm.utils import at_least

Integers = npt.NDArray[np.int64]

SPLIT_SHARE = 16  # one in 16 contents belongs to validation, one to test
ENUMERABLE = 4096  # contents; with more, the probability of an empty split is below 1e-114
HELD_OUT_SEED = 0


class Split(IntEnum):
    """Training, validation and test; the numbers are part of the random streams' keys."""

    TRAINING = 0
    VALIDATION = 1
    TEST = 2


class GeneratedTask(ABC):
    """A map from independent uniform choices to the tokens of a sample.

    Attributes:
        description: the task in a few words, for error messages.
        radices: number of values of each choice: choice j is uniform in 0..radices[j]-1, and
            different choices make different inputs.
        vocabulary_size: number of different tokens.
        timesteps: length T of a sample.
        answer_positions: timesteps of loss and accuracy.
    """

    description: str
    radices: tuple[int, ...]
    vocabulary_size: int
    timesteps: int
    answer_positions: range

    @abstractmethod
    def inputs(self, choices: Integers) -> Integers:
        """Return the tokens to read [B, T] for choices [B, len(radices)]."""

    @abstractmethod
    def targets(self, choices: Integers) -> Integers:
        """Return the tokens to predict [B, T] for choices [B, len(radices)]."""

    @abstractmethod
    def token_name(self, token: int) -> str:
        """Return the written form of a token."""

    def render(self, tokens: Sequence[int] | Tensor) -> str:
        """Write tokens [T] as in the paper's rows: names with a space between."""
        return " ".join(map(self.token_name, torch.as_tensor(tokens).tolist()))

    def samples(self, choices: Integers) -> list[Batch]:
        """Return the samples of choices [B, len(radices)], without a batch axis."""
        return self.batches(self.inputs(choices), self.targets(choices))

    def batches(self, inputs: Integers, targets: Integers) -> list[Batch]:
        """Split tokens to read and to predict, both [B, T], into samples without a batch axis."""
        loss_mask = torch.zeros(self.timesteps, dtype=torch.bool)
        loss_mask[self.answer_positions.start : self.answer_positions.stop] = True
        rows = zip(torch.from_numpy(inputs), torch.from_numpy(targets), strict=True)
        return [Batch(*row, loss_mask) for row in rows]


def split_of(inputs: Integers) -> Split:
    """Return the split of a sample, by the BLAKE2b hash of its input tokens [T].

    One of 16 residues of the hash is validation, one is test and 14 are training.
    """
    digest = hashlib.blake2b(inputs.astype("<i8", copy=False).tobytes(), digest_size=1).digest()
    return {0: Split.VALIDATION, 1: Split.TEST}.get(digest[0] % SPLIT_SHARE, Split.TRAINING)


def require_every_split(task: GeneratedTask) -> None:
    """Raise a ValueError if the task is so small that a split has no sample."""
    number = math.prod(task.radices)
    if number > ENUMERABLE:
        return
    choices = np.array(list(itertools.product(*map(range, task.radices))), dtype=np.int64)
    missing = set(Split) - {split_of(row) for row in task.inputs(choices)}
    if missing:
        names = " and ".join(split.name.lower() for split in sorted(missing))
        raise ValueError(
            f"{task.description} has only {number} different samples, none for {names}: "
            "take a longer or more varied one that leaves samples for each split"
        )


class RandomStreams:
    """Streams of random numbers, one for every index, independent of the order of access.

    Args:
        seed: 0..2**64-1.
        purpose: streams of different purposes are independent.
    """

    def __init__(self, seed: int, purpose: int) -> None:
        # Numbers of random_raw never change between versions of numpy
        self._stream = np.random.Philox(key=np.array([seed, purpose], dtype=np.uint64))
        self._initial_state: Any = self._stream.state  # of every stream, but for its counter

    def numbers(self, index: int, number: int) -> npt.NDArray[np.uint64]:
        """Return the first numbers of a stream, uniform in 0..2**64-1."""
        # Streams are 2**128 numbers apart, so that no two samples share any. Setting the state of a
        # generator takes an eighth of the time of making one.
        self._initial_state["state"]["counter"][2] = index
        self._stream.state = self._initial_state
        return self._stream.random_raw(number)


class GeneratedDataset(Dataset[Batch]):
    """The samples of one split of a task, with any index from 0 on.

    Args:
        task: makes the samples.
        split: training, validation or test.
        seed: 0..2**64-1; chooses the order of the split's contents.
        samples_per_epoch: value of ``len``; larger indices are valid.
        sampling: how the choices are drawn.
        accuracy: of the last validation, where the skew of the choices depends on it.
    """

    def __init__(
        self,
        task: GeneratedTask,
        split: Split,
        seed: int,
        samples_per_epoch: int,
        sampling: Sampling = UNIFORM,
        accuracy: Tensor | None = None,
    ) -> None:
        self.task = task
        self.split = split
        self.samples_per_epoch = samples_per_epoch
        self.sampling = sampling
        self._accuracy = accuracy
        self._streams = RandomStreams(seed, split)
        self._radices = np.array(task.radices, dtype=np.uint64)

    def __len__(self) -> int:
        return self.samples_per_epoch

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        return self.task.samples(self._choices(indices))

    def _choices(self, indices: Sequence[int]) -> Integers:
        """Draw choices [len(indices), len(radices)]: the first of each stream in the split."""
        choices = np.empty((len(indices), len(self._radices)), dtype=np.int64)
        pending = np.arange(len(indices))
        for attempt in itertools.count():
            if not pending.size:
                break
            choices[pending] = self._attempt([indices[int(row)] for row in pending], attempt)
            inputs = self.task.inputs(choices[pending])
            pending = pending[[split_of(row) is not self.split for row in inputs]]
        return choices

    def _attempt(self, indices: Sequence[int], attempt: int) -> Integers:
        """Draw the choices of the n-th attempt of each stream, of any split."""
        width = len(self._radices) + (1 if self.sampling.skew else 0)
        raw = self._numbers(self._streams, indices, attempt, width)
        if not self.sampling.skew:
            # The remainder of 64 random bits is uniform up to radix / 2**64
            return (raw % self._radices).astype(np.int64)
        uniform = raw / 2**64
        accuracy = 0.0 if self._accuracy is None else self._accuracy.item()
        skews = self.sampling.skews(indices, accuracy) * uniform[:, 0]
        return skewed(uniform[:, 1:], self._radices, skews)

    def _numbers(
        self, streams: RandomStreams, indices: Sequence[int], attempt: int, width: int
    ) -> npt.NDArray[np.uint64]:
        """Return the numbers of the n-th attempt of each stream, [len(indices), width]."""
        first, last = attempt * width, (attempt + 1) * width
        contents = map(self.sampling.content, indices)
        return np.stack([streams.numbers(index, last)[first:] for index in contents])


class GeneratedDataModule(SequenceDataModule):
    """Training, validation and test samples of a generated task.

    Args:
        task: makes the samples.
        batch_size: training samples of all devices together per step; 15 in the paper.
        samples_per_epoch: training samples from one validation to the next, a multiple of
            ``batch_size``.
        validation_samples: size of the validation set, the same for every seed.
        test_samples: size of the test set, the same for every seed.
        seed: 0..2**64-1; chooses the training samples.
        num_workers: processes that draw training samples ahead; 0 draws them in the trainer's.
        evaluation_batch_size: validation or test samples per device and step.
        sampling: settings of `Sampling`, by which training samples are drawn; None: uniformly.

    Attributes:
        sampling: the same as an object.

    Raises:
        ValueError: if an argument is out of its range, or the task is too small for three splits.
    """

    has_all_targets = True
    operand_forms: tuple[str, ...] = ("uniform",)

    def __init__(
        self,
        task: GeneratedTask,
        batch_size: int,
        samples_per_epoch: int,
        validation_samples: int,
        test_samples: int,
        seed: int,
        num_workers: int,
        evaluation_batch_size: int,
        sampling: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(batch_size, samples_per_epoch, seed, num_workers, evaluation_batch_size)
        require_every_split(task)
        self.task = task
        self.answer_positions = task.answer_positions
        self.sampling = Sampling(**(sampling or {}))
        if self.sampling.operands not in self.operand_forms:
            raise ValueError(f"sampling.operands must be uniform for {task.description}")
        # Processes that draw samples ahead see the number change
        self._accuracy = torch.zeros((), dtype=torch.float64)
        if self.sampling.skew_accuracy:
            self._accuracy.share_memory_()
        self.validation_samples = at_least("validation_samples", validation_samples, 1)
        self.test_samples = at_least("test_samples", test_samples, 1)

    @property
    def vocabulary_size(self) -> int:
        """Number of different tokens, the same for inputs and targets."""
        return self.task.vocabulary_size

    @property
    def input_size(self) -> int:
        """Number of different tokens to read."""
        return self.vocabulary_size

    @property
    def output_size(self) -> int:
        """Number of different tokens to predict."""
        return self.vocabulary_size

    @property
    def timesteps(self) -> int:
        """Length T of every sample."""
        return self.task.timesteps

    def token_name(self, token: int) -> str:
        """Return the written form of a token."""
        return self.task.token_name(token)

    def render(self, tokens: Sequence[int] | Tensor) -> str:
        """Write tokens [T] as in the paper's rows."""
        return self.task.render(tokens)

    @property
    def training_set(self) -> GeneratedDataset:
        """The training samples, with any index from 0 on."""
        return GeneratedDataset(
            self.task,
            Split.TRAINING,
            self.seed,
            self.samples_per_epoch,
            self.sampling,
            self._accuracy,
        )

    def note_accuracy(self, accuracy: float) -> None:
        """Take in the accuracy of the last validation, on which the next samples may depend."""
        self._accuracy.fill_(accuracy)

    @cached_property
    def validation_set(self) -> "Dataset[Batch]":
        """All validation samples, drawn once."""
        return self._held_out(Split.VALIDATION, self.validation_samples)

    @cached_property
    def test_set(self) -> "Dataset[Batch]":
        """All test samples, drawn once."""
        return self._held_out(Split.TEST, self.test_samples)

    def _held_out(self, split: Split, number: int) -> "Dataset[Batch]":
        samples = GeneratedDataset(self.task, split, HELD_OUT_SEED, number)
        drawn = samples.__getitems__(range(number))
        return cast("Dataset[Batch]", drawn)  # a list is a map-style dataset
