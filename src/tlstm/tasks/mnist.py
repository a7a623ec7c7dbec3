"""Sequential and permuted MNIST (Figure 5, Table 3): read an image pixel by pixel, name its digit.

Scikit-learn's digits are a stand-in for MNIST: 1797 real images of 8×8 pixels that are part of that
package. Their runs are called digits in every output.

Copies of MNIST exist with the training images in another order within each class. `canonical`
undoes that, so that all copies train and validate on the same images, and `fingerprint` identifies
the data.

The order of the pixels is numpy's `RandomState`, whose numbers never change. The order of the
training samples is the order of random numbers [ours] from `random_raw`, which never change either.
"""

import hashlib
import struct
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import MNIST
from torchvision.datasets.utils import check_integrity

from tlstm.tasks.base import Batch, SequenceDataModule
from tlstm.tasks.download import fetch, read_file
from tlstm.utils import at_least, true_or_false

CLASSES = 10
MNIST_PIXELS = 28 * 28
DIGITS_PIXELS = 8 * 8
DIGITS_TEST_SAMPLES = 297  # the last ones of 1797; of the first 1500, 1250 train
DIGITS_WHITE = 16  # value of a white pixel
MNIST_WHITE = 255
HELD_OUT_SHARE = 6  # the last sixth of the training files validates: 10,000 of 60,000 [paper]
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
MD5: dict[str, str] = dict(MNIST.resources)  # of the packed files, as torchvision knows them
ADVICE = "task=digits trains on scikit-learn's digits instead"


class Images(NamedTuple):
    """Images and their labels.

    Attributes:
        pixels: in reading order, uint8 [N, T].
        labels: digits from 0 to 9, int64 [N].
        white: value of a white pixel, which the network reads as 1.
    """

    pixels: Tensor
    labels: Tensor
    white: int


class Splits(NamedTuple):
    """The images of the three splits."""

    training: Images
    validation: Images
    test: Images


class ImageDataset(Dataset[Batch]):
    """Images as sequences: one pixel a timestep, the label as the target of the last one.

    Args:
        images: one sample each.
    """

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        chosen = torch.as_tensor(indices)
        inputs = self.images.pixels[chosen].unsqueeze(-1).float() / self.images.white
        targets = torch.zeros(inputs.shape[:2], dtype=torch.long)
        targets[:, -1] = self.images.labels[chosen]
        loss_mask = torch.zeros(inputs.shape[1], dtype=torch.bool)
        loss_mask[-1] = True
        return [Batch(*sample, loss_mask) for sample in zip(inputs, targets, strict=True)]


class ShuffledImages(ImageDataset):
    """Passes over the images without end, each in another order, with any index from 0 on.

    Sample i depends on (seed, i) alone.

    Args:
        images: the samples of every pass.
        seed: 0..2**64-1; chooses the orders.
        samples_per_epoch: value of ``len``; larger indices are valid.
    """

    def __init__(self, images: Images, seed: int, samples_per_epoch: int) -> None:
        super().__init__(images)
        self.seed = seed
        self.samples_per_epoch = samples_per_epoch

    def __len__(self) -> int:
        return self.samples_per_epoch

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        number = len(self.images.labels)
        places = (divmod(int(index), number) for index in indices)
        chosen = [int(permutation(number, self.seed, turn)[place]) for turn, place in places]
        return super().__getitems__(chosen)


class ImageDataModule(SequenceDataModule):
    """Images of digits, one pixel a timestep; the label is the target at the last pixel.

    Pixels are from 0 to 1, row by row. The last sixth of the images to learn from validates [ours].

    Args:
        data_dir: directory of the files or of their download, where the images are in files.
        sha256: the expected `fingerprint` of all images; None accepts any.
        permuted: True for pixels in one random order, the same for all images.
        permutation_seed: 0..2**32-1; chooses this order. 92916 is that of the full-capacity uRNN
            and of the dilated RNN [their code]; papers differ in it.
        batch_size: training samples of all devices together per step; 50 in the paper.
        samples_per_epoch: training samples from one validation to the next, a multiple of
            ``batch_size``.
        validation_samples: number of validation images, at most all of them.
        test_samples: number of test images, at most all of them.
        seed: 0..2**64-1; chooses the order of the training samples.
        num_workers: processes that read training samples ahead; 0 reads them in the trainer's.
        evaluation_batch_size: validation or test samples per device and step.

    Raises:
        ValueError: an argument is out of its range.
    """

    is_discrete = False
    input_size = 1
    output_size = CLASSES

    def __init__(
        self,
        data_dir: str | Path = "data",
        sha256: str | None = None,
        permuted: bool = False,
        permutation_seed: int = 92916,
        batch_size: int = 50,
        samples_per_epoch: int = 50_000,
        validation_samples: int = 10_000,
        test_samples: int = 10_000,
        seed: int = 0,
        num_workers: int = 0,
        evaluation_batch_size: int = 250,
    ) -> None:
        super().__init__(batch_size, samples_per_epoch, seed, num_workers, evaluation_batch_size)
        self.data_dir = Path(data_dir)
        self.sha256 = sha256
        self.permuted = true_or_false("permuted", permuted)
        self.permutation_seed = at_least("permutation_seed", permutation_seed, 0)
        if permutation_seed >= 2**32:
            raise ValueError(f"permutation_seed must be below 2**32, got {permutation_seed}")
        self._limits = (
            at_least("validation_samples", validation_samples, 1),
            at_least("test_samples", test_samples, 1),
        )

    @abstractmethod
    def read(self) -> tuple[Images, Images]:
        """Read the images to learn from and the test images.

        Raises:
            ValueError: files are damaged, or missing and cannot be downloaded.
            OSError: files cannot be read or written.
        """

    @property
    def training_set(self) -> ShuffledImages:
        """The training images, with any index from 0 on."""
        return ShuffledImages(self.splits.training, self.seed, self.samples_per_epoch)

    @property
    def validation_set(self) -> ImageDataset:
        """The validation images."""
        return ImageDataset(self.splits.validation)

    @property
    def test_set(self) -> ImageDataset:
        """The test images."""
        return ImageDataset(self.splits.test)

    def prepare_data(self) -> None:
        """Read everything, after downloading what is missing.

        Raises:
            ValueError, OSError: as for `read`, and for other images than expected.
        """
        _ = self.splits

    @cached_property
    def splits(self) -> Splits:
        """The images of every split, read once."""
        learnt, test = self.read()
        if self.sha256 is not None:
            self._check(fingerprint(learnt, test))
        if self.permuted:
            order = pixel_order(self.timesteps, self.permutation_seed)
            learnt, test = (part._replace(pixels=part.pixels[:, order]) for part in (learnt, test))
        training = len(learnt.labels) - len(learnt.labels) // HELD_OUT_SHARE
        validation = training + self._limits[0]
        return Splits(
            part_of(learnt, slice(training)),
            part_of(learnt, slice(training, validation)),
            part_of(test, slice(self._limits[1])),
        )

    def _check(self, found: str) -> None:
        """Refuse other images than the configuration declares."""
        if found != self.sha256:
            raise ValueError(
                f"{self.data_dir} holds other images than task.sha256={self.sha256} says: theirs "
                f"is {found}; to train on them, give them a name, as in task.name=my_images "
                f"task.sha256={found}"
            )


class DigitsDataModule(ImageDataModule):
    """Scikit-learn's digits: 1250, 250 and 297 images of 64 pixels, a stand-in for MNIST [ours]."""

    timesteps = DIGITS_PIXELS

    def read(self) -> tuple[Images, Images]:
        """Read the first 1500 images, to learn from, and the last 297, to test on."""
        from sklearn.datasets import load_digits  # takes a second, which MNIST does not need

        pixels, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
        digits = Images(pixels.to(torch.uint8), labels.long(), DIGITS_WHITE)
        learnt = len(labels) - DIGITS_TEST_SAMPLES
        return part_of(digits, slice(learnt)), part_of(digits, slice(learnt, None))


class MNISTDataModule(ImageDataModule):
    """MNIST: 50,000, 10,000 and 10,000 images of 784 pixels [paper].

    The files MNIST/raw/... are those of `torchvision.datasets.MNIST`, plain, or packed under the
    name of their download, .gz. Missing ones are downloaded once, by one process, whole or not at
    all.
    """

    timesteps = MNIST_PIXELS

    def read(self) -> tuple[Images, Images]:
        """Read the training images in their canonical order, and the test images.

        Raises:
            ValueError: a file is damaged, or missing and cannot be downloaded; the message names
                it.
            OSError: a file cannot be read or written.
        """
        paths = [file_of(self.data_dir, name) for name in FILES]
        for path in paths:
            urls = [f"{mirror}{path.name}" for mirror in MNIST.mirrors]
            fetch(urls, path, check_md5, ADVICE)
        return canonical(read_pair(*paths[:2])), read_pair(*paths[2:])


def pixel_order(timesteps: int, seed: int) -> Tensor:
    """Draw the order of reading the pixels of a permuted image, int64 [T].

    Args:
        timesteps: number of pixels T of an image.
        seed: 0..2**32-1.
    """
    return torch.from_numpy(np.random.RandomState(seed).permutation(timesteps))


def canonical(images: Images) -> Images:
    """Sort the images of each class by their SHA-256, at the indices of that class.

    An order by their bytes would make all copies equal as well. But it would put images that begin
    far up, such as tall digits, at the end of each class, where they all validate.
    """
    pixels = images.pixels.clone()
    for label in range(CLASSES):
        (indices,) = (images.labels == label).nonzero(as_tuple=True)
        rows = images.pixels[indices]
        digests = [hashlib.sha256(row.tobytes()).digest() for row in rows.numpy()]
        pixels[indices] = rows[sorted(range(len(digests)), key=digests.__getitem__)]
    return images._replace(pixels=pixels)


def fingerprint(learnt: Images, test: Images) -> str:
    """Compute the SHA-256 of all images and labels: to learn from, then to test on."""
    digest = hashlib.sha256()
    for part in (learnt, test):
        digest.update(part.pixels.numpy().tobytes())
        digest.update(part.labels.to(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=4)
def permutation(number: int, seed: int, stream: int) -> npt.NDArray[np.int64]:
    """Draw a random order of 0..number-1, the same on every machine.

    Args:
        number: length of the order.
        seed: 0..2**64-1.
        stream: 0..2**64-1; the orders of different streams are independent.
    """
    generator = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64))
    order = np.argsort(generator.random_raw(number), kind="stable").astype(np.int64)
    order.flags.writeable = False  # it is shared
    return order


def part_of(images: Images, part: slice) -> Images:
    """Return a slice of the images."""
    return images._replace(pixels=images.pixels[part], labels=images.labels[part])


def read_pair(images: Path, labels: Path) -> Images:
    """Read the images of one file and the labels of another.

    Raises:
        ValueError: a file is damaged, or the two do not match.
        OSError: a file cannot be read.
    """
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if pixels.shape[1:] != (28, 28):
        raise ValueError(f"{images} must hold images of 28×28 pixels, got {list(pixels.shape[1:])}")
    if len(pixels) != len(classes) or len(classes) < HELD_OUT_SHARE:
        raise ValueError(
            f"{images} must have as many images as there are labels, and at least "
            f"{HELD_OUT_SHARE}, got {len(pixels)} and {len(classes)}"
        )
    if classes.max() >= CLASSES:
        raise ValueError(f"{labels} must hold labels from 0 to 9")
    return Images(pixels.flatten(1), classes.long(), MNIST_WHITE)


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read a file of MNIST's format: a header of big-endian sizes, then unsigned bytes.

    Args:
        path: plain or packed; see `read_file`.
        dimensions: number of dimensions of the array.

    Returns:
        The array, uint8.

    Raises:
        ValueError: the file is damaged; the message names it.
        OSError: the file cannot be read.
    """
    content = read_file(path)
    try:
        magic, *shape = struct.unpack_from(f">{1 + dimensions}I", content)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (struct.error, ValueError):
        magic = None
    if magic != 0x800 + dimensions:  # 8 stands for unsigned bytes
        raise ValueError(
            f"{path} is damaged or no file of MNIST; once removed, it is downloaded again"
        )
    return torch.from_numpy(values.copy())  # torch's tensors are writable


def file_of(data_dir: Path, name: str) -> Path:
    """Return the place of a file of MNIST: the plain file if there is one, else the packed one."""
    plain = data_dir / "MNIST" / "raw" / name
    return plain if plain.is_file() else plain.with_name(f"{name}.gz")


def check_md5(path: Path) -> None:
    """Refuse a packed file that is not MNIST's.

    Raises:
        ValueError: its MD5 is another.
    """
    if not check_integrity(str(path), MD5[path.name]):
        raise ValueError(f"{path.name} is not MNIST's: its MD5 is not {MD5[path.name]}")
