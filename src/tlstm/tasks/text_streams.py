"""Text as parallel streams, read chunk after chunk with the recurrent state kept in between.

A character is predicted from all before it: the input at its position is the character before. The
input before the first character of the text is token 0, so that this one is predicted as well
[ours].
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tlstm.tasks.base import Batch, SequenceDataModule
from tlstm.utils import at_least


class Text(NamedTuple):
    """A text in tokens.

    Attributes:
        alphabet: the different bytes of the text in ascending order; token n is alphabet[n].
        tokens: the input at every position, uint8 [characters + 1]: tokens[p + 1] is character p,
            and tokens[p] the one before it.
    """

    alphabet: bytes
    tokens: npt.NDArray[np.uint8]


class Stretches(NamedTuple):
    """The targets of each stream: characters starts[s] .. ends[s] − 1, int64 [streams]."""

    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]


def encode(text: bytes) -> Text:
    """Encode a text as the numbers of its different bytes."""
    alphabet = bytes(value for value in range(256) if value in text)
    table = bytearray(256)
    for token, value in enumerate(alphabet):
        table[value] = token
    return Text(alphabet, np.frombuffer(b"\0" + text.translate(bytes(table)), dtype=np.uint8))


def whole_chunks(part: range, streams: int, timesteps: int) -> Stretches:
    """Divide a part into equally long streams of whole chunks, and leave out the rest."""
    length = len(part) // streams
    starts = part.start + length * np.arange(streams)
    return Stretches(starts, starts + length // timesteps * timesteps)


def every_character(part: range, streams: int) -> Stretches:
    """Divide a part of the text into streams whose lengths differ by at most one."""
    borders = part.start + len(part) * np.arange(streams + 1) // streams
    return Stretches(borders[:-1], borders[1:])


class StreamDataset(Dataset[Batch]):
    """Streams through a text; a sample is a chunk of one stream.

    Sample i is chunk ⌊i / streams⌋ of stream i mod streams, so that consecutive samples are a batch
    of all streams. The first chunk follows the last one: any index from 0 on is a sample.

    Args:
        text: the text in tokens.
        stretches: the targets of each stream.
        timesteps: characters of a chunk.
        context: characters that a stream reads before its first target.
        samples: value of ``len``; None for the samples of one pass.

    Attributes:
        streams: number of streams.
        chunks: chunks of every stream; the loss mask is False beyond a stream's end.
    """

    def __init__(
        self,
        text: Text,
        stretches: Stretches,
        timesteps: int,
        context: int = 0,
        samples: int | None = None,
    ) -> None:
        self._tokens = text.tokens
        self._stretches = stretches
        self._timesteps = timesteps
        self._context = context
        self.streams = len(stretches.starts)
        longest = context + int((stretches.ends - stretches.starts).max())
        self.chunks = -(-longest // timesteps)
        self._samples = self.chunks * self.streams if samples is None else samples

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        turns, streams = np.divmod(np.asarray(indices), self.streams)
        starts = self._stretches.starts[streams, None]
        ends = self._stretches.ends[streams, None]
        first = starts - self._context + turns[:, None] % self.chunks * self._timesteps
        places = first + np.arange(self._timesteps)
        inside = places.clip(0, len(self._tokens) - 2)
        parts = (
            torch.from_numpy(self._tokens[inside]).long(),
            torch.from_numpy(self._tokens[inside + 1]).long(),
            torch.from_numpy((places >= starts) & (places < ends)),
        )
        return [Batch(*sample) for sample in zip(*parts, strict=True)]


class StreamDataModule(SequenceDataModule):
    """A text as streams: 90 % train, 5 % validate and the last 5 % test [paper].

    Training reads ``batch_size`` streams, each from its beginning to its end, then all of them
    again. Validation and test count every character of their parts once; their streams first read
    some characters of the text before as context. Each device has its own streams.

    Args:
        batch_size: streams of all devices together.
        timesteps: characters of a chunk, through which gradients go back.
        samples_per_epoch: chunks of all streams from one validation to the next, a multiple of
            ``batch_size``.
        evaluation_streams: streams of validation and of test; the devices must share them evenly.
        context: characters that each of these reads first.
        num_workers: processes that cut training samples ahead; 0 cuts them in the trainer's.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        batch_size: int,
        timesteps: int,
        samples_per_epoch: int,
        evaluation_streams: int,
        context: int,
        num_workers: int,
    ) -> None:
        super().__init__(batch_size, samples_per_epoch, 0, num_workers, evaluation_streams)
        self._timesteps = at_least("timesteps", timesteps, 1)
        self.evaluation_streams = at_least("evaluation_streams", evaluation_streams, 1)
        self.context = at_least("context", context, 0)

    @property
    @abstractmethod
    def characters(self) -> int:
        """Length of the whole text."""

    @property
    @abstractmethod
    def text(self) -> Text:
        """The whole text in tokens."""

    @property
    def alphabet(self) -> bytes:  # type: ignore[override]  # known once the text is read
        """The different bytes of the text; token n is alphabet[n]."""
        return self.text.alphabet

    @property
    def parts(self) -> tuple[range, range, range]:
        """The characters of training, validation and test: 90 %, 5 % and 5 %."""
        held_out = self.characters // 20
        test, validation = self.characters - held_out, self.characters - 2 * held_out
        return range(validation), range(validation, test), range(test, self.characters)

    @property
    def timesteps(self) -> int:
        """Length T of every sample: the characters of a chunk."""
        return self._timesteps

    @property
    def output_size(self) -> int:
        """Number of different tokens to predict."""
        return self.input_size

    @property
    def samples_per_pass(self) -> int:  # type: ignore[override]  # once the text is read
        """Training samples from the beginning of the streams to their end."""
        training = self.parts[0]
        self._check_length("training", training, "batch_size", self.batch_size)
        return len(training) // self.batch_size // self.timesteps * self.batch_size

    @property
    def training_set(self) -> StreamDataset:
        """The training streams, with any index from 0 on."""
        stretches = whole_chunks(self.parts[0], self.batch_size, self.timesteps)
        return StreamDataset(self.text, stretches, self.timesteps, samples=self.samples_per_epoch)

    @property
    def validation_set(self) -> StreamDataset:
        """The validation streams."""
        return self._held_out("validation", self.parts[1])

    @property
    def test_set(self) -> StreamDataset:
        """The test streams."""
        return self._held_out("test", self.parts[2])

    @property
    def validation_samples(self) -> int:  # type: ignore[override]  # known once they are cut
        """Number of validation samples."""
        return len(self.validation_set)

    @property
    def test_samples(self) -> int:  # type: ignore[override]
        """Number of test samples."""
        return len(self.test_set)

    def prepare_data(self) -> None:
        """Read the text, after downloading it if it is missing, and check its length.

        Raises:
            ValueError: the text is missing, damaged or too short.
            OSError: it cannot be read or written.
        """
        _ = self.text, self.samples_per_pass, self.validation_set, self.test_set

    def token_name(self, token: int) -> str:
        """Return the character, or a replacement mark for a byte that is none by itself."""
        return self.render([token])

    def render(self, tokens: Sequence[int] | Tensor) -> str:
        """Write tokens [T] as text; a token that does not occur in it is nothing."""
        alphabet = self.text.alphabet
        characters = (alphabet[token : token + 1] for token in np.asarray(tokens).tolist())
        return b"".join(characters).decode(errors="replace")

    def _held_out(self, name: str, part: range) -> StreamDataset:
        self._check_length(name, part, "evaluation_streams", self.evaluation_streams)
        stretches = every_character(part, self.evaluation_streams)
        return StreamDataset(self.text, stretches, self.timesteps, self.context)

    def _check_length(self, name: str, part: range, argument: str, streams: int) -> None:
        """Refuse a part that is too short for one chunk of every stream."""
        if len(part) < streams * self.timesteps:
            raise ValueError(
                f"the text has {len(part):,} characters for {name}, and {argument}={streams} of "
                f"{self.timesteps} characters need {streams * self.timesteps:,}: take a longer "
                "text or fewer streams"
            )

    def _evaluation_loader(
        self, dataset: Dataset[Batch], rank: int, world_size: int
    ) -> DataLoader[Batch]:
        if self.evaluation_streams % world_size:
            raise ValueError(
                "evaluation_streams must be a multiple of the number of devices "
                f"({world_size}), got {self.evaluation_streams}"
            )
        sampler: Any = UnrepeatedDistributedSampler(
            dataset, num_replicas=world_size, rank=rank, shuffle=False
        )
        return DataLoader(
            dataset, batch_size=self.evaluation_streams // world_size, sampler=sampler
        )
