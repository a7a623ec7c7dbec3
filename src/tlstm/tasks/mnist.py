"""Sequential and permuted MNIST (Figure 5, Table 3): read an image pixel by pixel, name its digit.

Where neither the files nor a network are there, scikit-learn's digits stand in for MNIST: 1797 real
images of 8×8 pixels, which that package carries. What is made from them is called digits, and never
MNIST.

MNIST is its images and labels, not its files: copies exist whose training images stand in another
order within each class. `canonical` undoes that, so that all copies train and validate on the same
images, and `fingerprint` tells them from other data.

The order of the pixels is numpy's `RandomState`, whose numbers never change; that of the training
samples are sorted random numbers [ours] from `random_raw`, which does not change either.
"""

import gzip
import hashlib
import shutil
import tempfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache, cached_property, lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import Literal, NamedTuple, cast
from urllib.request import Request, urlopen

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import MNIST
from torchvision.datasets.mnist import read_image_file, read_label_file

from tlstm.tasks.base import Batch, SequenceDataModule
from tlstm.utils import (
    at_least,
    true_or_false,
)

Source = Literal["mnist", "digits"]

PIXELS: dict[Source, int] = {"mnist": 28 * 28, "digits": 8 * 8}
CLASSES = 10
DIGITS_TEST_SAMPLES = 297  # the last ones; 1500 are left, of which 1250 train
LARGEST_DIGITS_PIXEL = 16
HELD_OUT_SHARE = 6  # the last sixth of the training files validates: 10,000 of 60,000 [paper]
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
NETWORK_SECONDS = 5.0  # until a server that does not answer counts as none


class Images(NamedTuple):
    """Images with what they show.

    Attributes:
        pixels: in the order in which they are read, uint8 [N, T].
        labels: digits from 0 to 9, int64 [N].
        largest: the value of a white pixel, which is read as 1.
    """

    pixels: Tensor
    labels: Tensor
    largest: int


class Splits(NamedTuple):
    """The images of the three splits."""

    training: Images
    validation: Images
    test: Images


class ImageDataset(Dataset[Batch]):
    """Images as sequences: a pixel a timestep, the label to be given at the last one.

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
        inputs = self.images.pixels[chosen].unsqueeze(-1).float() / self.images.largest
        targets = torch.zeros(inputs.shape[:2], dtype=torch.long)
        targets[:, -1] = self.images.labels[chosen]
        answer = torch.zeros(inputs.shape[1], dtype=torch.bool)
        answer[-1] = True
        return [Batch(*sample, answer) for sample in zip(inputs, targets, strict=True)]


class ShuffledImages(ImageDataset):
    """The images again and again, every pass in an order of its own; any index from 0 on.

    Sample i depends on (seed, i) alone.

    Args:
        images: what every pass reads.
        seed: 0..2**64-1; it chooses the orders.
        samples_per_epoch: what ``len`` says; larger indices are as good.
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


class MNISTDataModule(SequenceDataModule):
    """MNIST, a pixel a step: 50,000, 10,000 and 10,000 images of 784 pixels [paper].

    Pixels are from 0 to 1, row by row; the label is the answer at the last pixel. The first 50,000
    images of the training files train and the last 10,000 validate [ours]; the test files test.

    The files are those of `torchvision.datasets.MNIST`, as they are downloaded (.gz) or unpacked.
    They are downloaded where they are missing: once, by one process, and whole or not at all.

    Args:
        source: "mnist", or "digits" for the images that stand in for it: 1250, 250 and 297.
        permuted: whether the pixels come in one random order, the same for all images.
        permutation_seed: 0..2**32-1; chooses this order. 92916 is the one of the full-capacity uRNN
            and of the dilated RNN [their code]; papers differ in it.
        data_dir: holds, or will hold, the files in MNIST/raw.
        sha256: what `fingerprint` must give for the files; None accepts any.
        batch_size: training samples of all devices together per step; 50 in the paper.
        samples_per_epoch: training samples from one validation to the next, a multiple of
            ``batch_size``.
        validation_samples: the first so many of the validation images, all where there are fewer.
        test_samples: the same of the test images.
        seed: 0..2**64-1; chooses the order of the training samples.
        num_workers: processes that read training samples ahead; 0 reads them in the trainer's own.
        evaluation_batch_size: validation or test samples per device and step.

    Raises:
        ValueError: if an argument is out of its range.
    """

    reads_symbols = False
    input_size = 1
    output_size = CLASSES

    def __init__(
        self,
        source: Source = "mnist",
        permuted: bool = False,
        permutation_seed: int = 92916,
        data_dir: str | Path = "data",
        sha256: str | None = None,
        batch_size: int = 50,
        samples_per_epoch: int = 50_000,
        validation_samples: int = 10_000,
        test_samples: int = 10_000,
        seed: int = 0,
        num_workers: int = 0,
        evaluation_batch_size: int = 250,
    ) -> None:
        super().__init__(batch_size, samples_per_epoch, seed, num_workers, evaluation_batch_size)
        if source not in PIXELS:
            raise ValueError(f"source must be one of {', '.join(PIXELS)}, got {source!r}")
        self.source = source
        self.permuted = true_or_false("permuted", permuted)
        self.permutation_seed = at_least("permutation_seed", permutation_seed, 0)
        if permutation_seed >= 2**32:
            raise ValueError(f"permutation_seed must be below 2**32, got {permutation_seed}")
        self.data_dir = Path(data_dir)
        self.sha256 = sha256
        self._limits = (
            at_least("validation_samples", validation_samples, 1),
            at_least("test_samples", test_samples, 1),
        )

    @staticmethod
    def available_source(data_dir: Path, named: bool) -> Source:
        """Which images there are to train on.

        Args:
            data_dir: holds, or would hold, the files in MNIST/raw.
            named: whether somebody asked for this directory; then nothing stands in for its files.

        Raises:
            ValueError: a directory that was named, or that holds some of the files, is not there or
                lacks files, which cannot be downloaded.
        """
        missing = missing_files(data_dir)
        if named and not data_dir.is_dir():
            raise ValueError(f"task.data_dir={data_dir}: there is no such directory")
        if not missing or network():
            return "mnist"
        if named or len(missing) < len(FILES):
            raise ValueError(_not_to_be_had(data_dir))
        return "digits"

    @property
    def timesteps(self) -> int:
        """Length T of every sample: the pixels of an image."""
        return PIXELS[self.source]

    @property
    def training_set(self) -> ShuffledImages:
        """The training images; any index from 0 on is one."""
        return ShuffledImages(self.splits.training, self.seed, self.samples_per_epoch)

    @property
    def validation_set(self) -> ImageDataset:
        """The validation images."""
        return ImageDataset(self.splits.validation)

    @property
    def test_set(self) -> ImageDataset:
        """The test images."""
        return ImageDataset(self.splits.test)

    @property
    def validation_samples(self) -> int:  # type: ignore[override]  # known once they are read
        """Number of validation images."""
        return len(self.validation_set)

    @property
    def test_samples(self) -> int:  # type: ignore[override]
        """Number of test images."""
        return len(self.test_set)

    def prepare_data(self) -> None:
        """Download what is missing, and read everything.

        Raises:
            ValueError: files are damaged, or missing and not to be downloaded.
            OSError: files cannot be read or written.
        """
        _ = self.splits

    @cached_property
    def splits(self) -> Splits:
        """The images of every split, read once."""
        if self.source == "digits":
            learnt, test = read_digits()
        else:
            learnt, test = read_mnist(self.data_dir)
            check_fingerprint(self.data_dir, fingerprint(learnt, test), self.sha256)
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


def pixel_order(timesteps: int, seed: int) -> Tensor:
    """The order in which the pixels of a permuted image are read, int64 [T].

    Args:
        timesteps: T, the pixels of an image.
        seed: 0..2**32-1.
    """
    return torch.from_numpy(np.random.RandomState(seed).permutation(timesteps))


def canonical(images: Images) -> Images:
    """The images of each class in the order of their SHA-256, at the places of that class.

    The order of their bytes would do as well to make all copies equal, but would put the images
    that begin far up, such as tall digits, at the end of each class, where they all validate.
    """
    pixels = images.pixels.clone()
    for label in range(CLASSES):
        (places,) = (images.labels == label).nonzero(as_tuple=True)
        rows = images.pixels[places]
        digests = [hashlib.sha256(row.tobytes()).digest() for row in rows.numpy()]
        pixels[places] = rows[sorted(range(len(digests)), key=digests.__getitem__)]
    return images._replace(pixels=pixels)


def fingerprint(learnt: Images, test: Images) -> str:
    """The SHA-256 of all images and labels, of those to learn from and then of the test's."""
    digest = hashlib.sha256()
    for part in (learnt, test):
        digest.update(part.pixels.numpy().tobytes())
        digest.update(part.labels.to(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_fingerprint(data_dir: Path, found: str, declared: str | None) -> None:
    """Refuse other data than those that a run is known by.

    Raises:
        ValueError: the fingerprints differ.
    """
    if declared is not None and found != declared:
        raise ValueError(
            f"{_raw(data_dir)} holds other images than task.sha256={declared} says: theirs is "
            f"{found}; to train on them, give them a name, as in task.label=my_images "
            f"task.sha256={found}"
        )


@lru_cache(maxsize=4)
def permutation(number: int, seed: int, stream: int) -> npt.NDArray[np.int64]:
    """A random order of 0..number-1, the same everywhere and always.

    Args:
        number: how many there are to order.
        seed: 0..2**64-1.
        stream: 0..2**64-1; the orders of different streams are independent.
    """
    generator = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64))
    order = np.argsort(generator.random_raw(number), kind="stable").astype(np.int64)
    order.flags.writeable = False  # it is shared
    return order


def part_of(images: Images, part: slice) -> Images:
    """Some of the images."""
    return images._replace(pixels=images.pixels[part], labels=images.labels[part])


def read_digits() -> tuple[Images, Images]:
    """Scikit-learn's digits: the first 1500 to learn from, and the last 297."""
    from sklearn.datasets import load_digits  # a second, which MNIST does not need

    pixels, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    digits = Images(pixels.to(torch.uint8), labels.long(), LARGEST_DIGITS_PIXEL)
    learnt = len(labels) - DIGITS_TEST_SAMPLES
    return part_of(digits, slice(learnt)), part_of(digits, slice(learnt, None))


def read_mnist(data_dir: Path) -> tuple[Images, Images]:
    """The training images in their canonical order and the test images, downloaded if need be.

    Raises:
        ValueError: a file is damaged, or missing and not to be downloaded; the message names it.
        OSError: a file cannot be read or written.
    """
    if missing_files(data_dir):
        download(data_dir)
    return canonical(read_pair(data_dir, *FILES[:2])), read_pair(data_dir, *FILES[2:])


def read_pair(data_dir: Path, images: str, labels: str) -> Images:
    """The images of one file with the labels of another.

    Raises:
        ValueError: one is damaged, or they do not belong together.
        OSError: one cannot be read.
    """
    pixels, classes = (
        read_file(_existing(data_dir, images), read_image_file),
        read_file(_existing(data_dir, labels), read_label_file),
    )
    place = _existing(data_dir, images)
    if pixels[0].shape != (28, 28):
        raise ValueError(f"{place} must hold images of 28×28 pixels, got {list(pixels.shape[1:])}")
    if len(pixels) != len(classes) or len(classes) < HELD_OUT_SHARE:
        raise ValueError(
            f"{place} must have as many images as there are labels, and at least "
            f"{HELD_OUT_SHARE}, got {len(pixels)} and {len(classes)}"
        )
    if classes.max() >= CLASSES:
        raise ValueError(f"{_existing(data_dir, labels)} must hold labels from 0 to 9")
    return Images(pixels.flatten(1), classes, largest=255)


def read_file(path: Path, read: Callable[[str], Tensor]) -> Tensor:
    """What torchvision reads from a file, which may be packed.

    Raises:
        ValueError: it is damaged; the message names it.
        OSError: it cannot be read.
    """
    try:
        if path.suffix != ".gz":
            return read(str(path))
        with tempfile.NamedTemporaryFile() as plain:
            with gzip.open(path) as packed:
                shutil.copyfileobj(packed, plain)
            plain.flush()
            return read(plain.name)
    except (
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
        AssertionError,  # the following are torchvision's, of what is no such file
        RuntimeError,
        TypeError,
        ValueError,
        LookupError,
    ) as error:
        raise ValueError(
            f"{path} is damaged or no file of MNIST; without it, it is downloaded again"
        ) from error


def missing_files(data_dir: Path) -> list[str]:
    """Those of MNIST's files that are there neither packed nor unpacked."""
    return [name for name in FILES if not _existing(data_dir, name).is_file()]


def download(data_dir: Path) -> None:
    """Have torchvision download MNIST; of several processes one does it and the others wait.

    Raises:
        ValueError: it cannot be downloaded.
        OSError: the directory cannot be written.
    """
    if not network():
        raise ValueError(_not_to_be_had(data_dir))
    raw = _raw(data_dir)
    raw.mkdir(parents=True, exist_ok=True)
    with FileLock(raw / ".lock"):
        if not missing_files(data_dir):
            return
        # torchvision would leave half a file in its place where it is killed
        with tempfile.TemporaryDirectory(dir=data_dir, prefix=".download-") as beside:
            try:
                MNIST(beside, download=True)
            except (RuntimeError, HTTPException) as error:
                raise ValueError(f"MNIST cannot be downloaded: {error}") from error
            for name in FILES:
                (_raw(Path(beside)) / name).replace(raw / name)


@cache
def network() -> bool:
    """Whether one of the servers that MNIST is downloaded from answers."""
    for mirror in cast("list[str]", MNIST.mirrors):
        request = Request(f"{mirror}{FILES[1]}.gz", method="HEAD")
        try:
            with urlopen(request, timeout=NETWORK_SECONDS):
                return True
        except (OSError, HTTPException):
            continue
    return False


def _raw(data_dir: Path) -> Path:
    return data_dir / "MNIST" / "raw"


def _existing(data_dir: Path, name: str) -> Path:
    """The file, unpacked where it is so, else packed."""
    unpacked = _raw(data_dir) / name
    return unpacked if unpacked.is_file() else unpacked.with_name(f"{name}.gz")


def _not_to_be_had(data_dir: Path) -> str:
    return (
        f"{_raw(data_dir)} lacks {', '.join(missing_files(data_dir))} of MNIST, and there is no "
        "network to download them; task.source=digits trains on scikit-learn's digits instead"
    )
