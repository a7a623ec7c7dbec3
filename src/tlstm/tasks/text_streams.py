"""Text as parallel streams, read chunk after chunk with the recurrent state kept in between.

A character is predicted from all before it: the input at its position is the character before. The
input before the first character of the text is token 0, so that this one is predicted as well
[ours].
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from tlstm.tasks.base import Batch


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
