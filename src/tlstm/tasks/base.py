"""The batch, and the distribution of samples over epochs, workers and devices, for every task.

Training reads samples 0, 1, 2, ... of the training set without end: epoch e of the trainer reads
e·samples_per_epoch and following. The sample at an index depends on the seed alone, so that
workers, devices and restarts cannot change it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

from lightning import LightningDataModule
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from tlstm.utils import at_least


class Batch(NamedTuple):
    """Sequences to read and to predict; a single sample is the same without the first axis.

    Attributes:
        inputs: tokens, int64 [B, T], or features, float [B, T, input_size].
        targets: tokens or classes to predict, int64 [B, T].
        loss_mask: True at the positions of loss and accuracy, bool [B, T].
    """

    inputs: Tensor
    targets: Tensor
    loss_mask: Tensor


class ConsecutiveSampler(DistributedSampler[Any]):
    """Indices that continue from epoch to epoch, dealt out to the devices in turn.

    Epoch e is e·n .. (e+1)·n-1, where n is the dataset's length, a multiple of ``num_replicas``.
    A device takes every ``num_replicas``-th index from its rank on, so that all devices together
    read the same samples per step whatever their number. Lightning calls ``set_epoch`` and leaves
    a DistributedSampler in its place.
    """

    def __iter__(self) -> Iterator[Any]:
        first = self.epoch * self.total_size
        return iter(range(first + self.rank, first + self.total_size, self.num_replicas))


class LazyDataLoader(DataLoader[Batch]):
    """A DataLoader whose workers start with the first batch.

    Lightning makes the iterator of the first epoch before it calls the sampler's ``set_epoch``:
    workers that fetch ahead would begin a resumed run with the samples of epoch 0.
    """

    def __iter__(self) -> Any:
        yield from super().__iter__()


class SequenceDataModule(LightningDataModule, ABC):
    """Training, validation and test samples of a task.

    A run that resumes at the end of an epoch, as Lightning's checkpoints do, continues with the
    next samples. Each validation sample is read by one device, each test sample by every device:
    test on one.

    Args:
        batch_size: training samples of all devices together per step.
        samples_per_epoch: training samples from one validation to the next, a multiple of
            ``batch_size``.
        seed: 0..2**64-1; chooses the training samples or their order.
        num_workers: processes that draw training samples ahead; 0 draws them in the trainer's.
        evaluation_batch_size: validation or test samples per device and step.

    Attributes:
        is_discrete: True where inputs are tokens, False where they are features.
        has_all_targets: True where positions outside the loss mask have targets as well.
        batches_at_a_time: training batches that the loader returns as one, concatenated along the
            first axis; the last ones of an epoch may be fewer. The samples stay the same.
        samples_per_pass: training samples until every stream starts again, where samples are
            consecutive chunks of streams; None where samples are independent.
        alphabet: the byte that each token of a text stands for; None for other tasks.
        answer_positions: timesteps of the loss mask, where they are several and always the same.

    Raises:
        ValueError: if an argument is out of its range.
    """

    is_discrete = True
    has_all_targets = False
    batches_at_a_time = 1
    samples_per_pass: int | None = None
    alphabet: bytes | None = None
    answer_positions: range | None = None

    def __init__(
        self,
        batch_size: int,
        samples_per_epoch: int,
        seed: int,
        num_workers: int,
        evaluation_batch_size: int,
    ) -> None:
        super().__init__()
        self.batch_size = at_least("batch_size", batch_size, 1)
        self.samples_per_epoch = at_least("samples_per_epoch", samples_per_epoch, 1)
        self.seed = at_least("seed", seed, 0)
        self.num_workers = at_least("num_workers", num_workers, 0)
        self.evaluation_batch_size = at_least("evaluation_batch_size", evaluation_batch_size, 1)
        if seed >= 2**64:
            raise ValueError(f"seed must be below 2**64, got {seed}")
        if samples_per_epoch % batch_size:
            raise ValueError(
                f"samples_per_epoch must be a multiple of batch_size={batch_size}, "
                f"got {samples_per_epoch}"
            )

    @property
    @abstractmethod
    def input_size(self) -> int:
        """Number of features of an input, or of different tokens."""

    @property
    @abstractmethod
    def output_size(self) -> int:
        """Number of tokens or classes to choose from."""

    @property
    @abstractmethod
    def timesteps(self) -> int:
        """Length T of every sample."""

    @property
    @abstractmethod
    def training_set(self) -> Dataset[Batch]:
        """The training samples, with any index from 0 on; ``len`` is an epoch."""

    @property
    @abstractmethod
    def validation_set(self) -> Dataset[Batch]:
        """All validation samples."""

    @property
    @abstractmethod
    def test_set(self) -> Dataset[Batch]:
        """All test samples."""

    @cached_property
    def validation_samples(self) -> int:
        """Size of the validation set."""
        return len(self.validation_set)  # type: ignore[arg-type]  # as all map-style datasets

    @cached_property
    def test_samples(self) -> int:
        """Size of the test set."""
        return len(self.test_set)  # type: ignore[arg-type]

    def token_name(self, token: int) -> str:
        """Return the written form of a token or class: its number, unless a task has a name."""
        return str(token)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Load the training samples of this device.

        Raises:
            ValueError: if the devices cannot share ``batch_size`` evenly.
        """
        rank, world_size = self._rank_and_world_size()
        if self.batch_size % world_size:
            raise ValueError(
                f"batch_size must be a multiple of the number of devices ({world_size}), "
                f"got {self.batch_size}"
            )
        dataset = self.training_set
        return LazyDataLoader(
            dataset,
            batch_size=self.batches_at_a_time * self.batch_size // world_size,
            sampler=ConsecutiveSampler(dataset, num_replicas=world_size, rank=rank, shuffle=False),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self._on_gpu(),
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """Load the validation samples of this device, each of which belongs to one device.

        Raises:
            ValueError: if there are fewer validation samples than devices.
        """
        rank, world_size = self._rank_and_world_size()
        if self.validation_samples < world_size:
            raise ValueError(
                f"validation_samples must be at least the number of devices ({world_size}), "
                f"got {self.validation_samples}"
            )
        return self._evaluation_loader(self.validation_set, rank, world_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Load all test samples, on every device."""
        return self._evaluation_loader(self.test_set, rank=0, world_size=1)

    def _evaluation_loader(
        self, dataset: Dataset[Batch], rank: int, world_size: int
    ) -> DataLoader[Batch]:
        sampler = UnrepeatedDistributedSampler(
            dataset, num_replicas=world_size, rank=rank, shuffle=False
        )
        batch_size = self._evaluation_batch_size_on(world_size)
        return DataLoader(dataset, batch_size=batch_size, sampler=sampler)

    def _evaluation_batch_size_on(self, world_size: int) -> int:
        """Return the samples per device and step, where there are `world_size` devices."""
        return self.evaluation_batch_size

    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _rank_and_world_size(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size
