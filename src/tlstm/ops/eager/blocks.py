"""The hidden convolution in parts: locations together that read by the same taps of the kernel.

A location at a border has taps that read nothing but the padding beyond it. A part leaves those
out of its matrix product; with 3 taps on each of two axes of 5 locations that is a quarter of the
arithmetic. The projected input is not among what a part reads: see `entrance`.

Dimension letters of this file:
    B       examples
    P..     the location axes
    G..     the locations of a part, a range of each location axis
    K..     the kernel's axes
    R..     the taps of a part, a range of each of the kernel's axes
    M, O    channels before and after the convolution
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, product
from math import prod

from torch import Tensor

from tlstm.ops.geometry import padding
from tlstm.ops.shapes import Sizes, windows

# Costs beside the multiply-adds of the matrix products, in multiply-adds: of a part in a timestep,
# for its calls and copies (some 100 µs of a core, 10 µs of a GPU), and of a weight in a call
PART_OF_CPU, PART_OF_GPU = 2**23, 2**31
WEIGHT = 2**12

Ranges = tuple[range, ...]
Pairs = list[tuple[range, range]]


@dataclass(frozen=True)
class Part:
    """Locations and the taps by which they read, a range along each axis."""

    locations: Ranges
    taps: Ranges

    @property
    def reads(self) -> int:
        """How many taps each of its locations reads by."""
        return prod(len(each) for each in self.taps)

    @property
    def pairs(self) -> int:
        """How many taps its locations read by, all together."""
        return self.reads * prod(len(each) for each in self.locations)

    def of_locations(self, tensor: Tensor) -> Tensor:
        """Its locations of [.., P.., C]: a view [.., G.., C]."""
        return _narrow(tensor, self.locations)

    def of_weight(self, weight: Tensor) -> Tensor:
        """Its taps of Wʰ [O, M, K..]: a view [O, M, R..]."""
        for axis, each in enumerate(self.taps, start=2):
            weight = weight.narrow(axis, each.start, len(each))
        return weight

    def of_padded(self, padded: Tensor, sizes: Sizes) -> Tensor:
        """What it reads of H with its padding, [.., (P+K−1).., M]: a view [.., G.., R.., M]."""
        return _narrow(windows(padded, sizes), (*self.locations, *self.taps))


def _narrow(tensor: Tensor, ranges: Ranges) -> Tensor:
    """Ranges of the axes before the last one."""
    for axis, each in zip(range(-1 - len(ranges), -1), ranges, strict=True):
        tensor = tensor.narrow(axis, each.start, len(each))
    return tensor


@lru_cache(maxsize=64)
def partition(sizes: Sizes, device_type: str) -> tuple[Part, ...]:
    """The parts that cost least: split by taps along some of the axes, whole along the others."""
    split, whole = _split(sizes), _whole(sizes)
    partitions = [
        _parts([split] * axes + [whole] * (sizes.axes - axes)) for axes in range(sizes.axes + 1)
    ]
    return min(partitions, key=lambda parts: _cost(parts, sizes, device_type))


def _parts(along: list[Pairs]) -> tuple[Part, ...]:
    """Every combination of locations and taps along each axis."""
    return tuple(
        Part(tuple(locations for locations, _ in pairs), tuple(taps for _, taps in pairs))
        for pairs in product(*along)
    )


def _cost(parts: tuple[Part, ...], sizes: Sizes, device_type: str) -> int:
    """Of a call, in multiply-adds."""
    weights = sizes.channels * sizes.convolved  # of a tap
    arithmetic = sum(part.pairs for part in parts) * sizes.batch_size * weights
    calls = len(parts) * (PART_OF_CPU if device_type == "cpu" else PART_OF_GPU)
    copies = sum(part.reads for part in parts) * weights * WEIGHT
    return sizes.steps * (arithmetic + calls) + copies


def _split(sizes: Sizes) -> Pairs:
    """Locations and taps of one axis, cut wherever the taps that read a location change."""
    groups = groupby(range(sizes.tensor_size), key=lambda location: _reading(location, sizes))
    return [(_span(list(locations)), taps) for taps, locations in groups]


def _whole(sizes: Sizes) -> Pairs:
    """All locations of one axis, and every tap by which any of them reads a location."""
    locations = range(sizes.tensor_size)
    taps = [tap for location in locations for tap in _reading(location, sizes)]
    return [(locations, _span(taps))]


def _reading(location: int, sizes: Sizes) -> range:
    """The taps by which a location reads a location, and not the padding."""
    before, _ = padding(sizes.kernel_size)
    last = sizes.tensor_size - 1 - location + before
    return range(max(0, before - location), min(sizes.kernel_size, last + 1))


def _span(numbers: list[int]) -> range:
    return range(min(numbers), max(numbers) + 1)


def moves(part: Part, sizes: Sizes) -> Iterator[tuple[tuple[slice, ...], tuple[int | slice, ...]]]:
    """Tap by tap, which locations of [P..] are read and which of [G.., R..] reads them.

    Pairs of indices; the second's are of the reading locations and then of the tap.
    """
    for taps in product(*part.taps):
        pairs = [
            _move(locations, tap, sizes)
            for locations, tap in zip(part.locations, taps, strict=True)
        ]
        offsets = [tap - own.start for tap, own in zip(taps, part.taps, strict=True)]
        yield tuple(pair[0] for pair in pairs), (*(pair[1] for pair in pairs), *offsets)


def _move(locations: range, tap: int, sizes: Sizes) -> tuple[slice, slice]:
    """Along one axis: the locations inside the border that are read, and their readers."""
    before, _ = padding(sizes.kernel_size)
    first = locations.start - before + tap  # what the first of them reads
    start, stop = max(first, 0), min(first + len(locations), sizes.tensor_size)
    return slice(start, stop), slice(start - first, stop - first)
