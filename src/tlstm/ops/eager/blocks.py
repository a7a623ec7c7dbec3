"""The partition of the hidden convolution into blocks of locations that read by the same taps.

A location at a border has taps that read only padding. A block leaves those out of its matrix
product; with 3 taps on each of two axes of 5 locations that saves a quarter of the arithmetic.
A block does not read the projected input; `convolution.InputConv` does.

Dimension letters of this file:
    B       examples
    P..     the location axes
    G..     the locations of a block, a range of each location axis
    K..     the kernel's axes
    R..     the taps of a block, a range of each of the kernel's axes
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

# Costs in multiply-adds, besides those of the matrix products: of a block in a timestep, for its
# calls and copies (about 100 µs of a core, 10 µs of a GPU), and of a weight in a call
BLOCK_ON_CPU, BLOCK_ON_GPU = 2**23, 2**31
WEIGHT = 2**12

Ranges = tuple[range, ...]
Pairs = list[tuple[range, range]]


@dataclass(frozen=True)
class Block:
    """Locations and the taps by which they read, a range along each axis."""

    locations: Ranges
    taps: Ranges

    @property
    def reads(self) -> int:
        """The number of taps by which each of its locations reads."""
        return prod(len(each) for each in self.taps)

    @property
    def pairs(self) -> int:
        """The number of pairs of a location and a tap by which it reads."""
        return self.reads * prod(len(each) for each in self.locations)

    def of_locations(self, tensor: Tensor) -> Tensor:
        """View its locations of [.., P.., C]: [.., G.., C]."""
        return _narrow(tensor, self.locations)

    def of_weight(self, weight: Tensor) -> Tensor:
        """View its taps of Wʰ [O, M, K..]: [O, M, R..]."""
        for axis, each in enumerate(self.taps, start=2):
            weight = weight.narrow(axis, each.start, len(each))
        return weight

    def of_padded(self, padded: Tensor, sizes: Sizes) -> Tensor:
        """View its input in H with its padding, [.., (P+K−1).., M]: [.., G.., R.., M]."""
        return _narrow(windows(padded, sizes), (*self.locations, *self.taps))


def _narrow(tensor: Tensor, ranges: Ranges) -> Tensor:
    """View ranges of the axes before the last one."""
    for axis, each in zip(range(-1 - len(ranges), -1), ranges, strict=True):
        tensor = tensor.narrow(axis, each.start, len(each))
    return tensor


@lru_cache(maxsize=64)
def partition(sizes: Sizes, device_type: str) -> tuple[Block, ...]:
    """Return the blocks that cost least: split by taps along some axes, whole along the others."""
    split, whole = _split(sizes), _whole(sizes)
    partitions = [
        _blocks([split] * axes + [whole] * (sizes.axes - axes)) for axes in range(sizes.axes + 1)
    ]
    return min(partitions, key=lambda blocks: _cost(blocks, sizes, device_type))


def _blocks(along: list[Pairs]) -> tuple[Block, ...]:
    """Combine the locations and taps along each axis."""
    return tuple(
        Block(tuple(locations for locations, _ in pairs), tuple(taps for _, taps in pairs))
        for pairs in product(*along)
    )


def _cost(blocks: tuple[Block, ...], sizes: Sizes, device_type: str) -> int:
    """Return the cost of a call in multiply-adds."""
    weights = sizes.channels * sizes.convolved  # of a tap
    arithmetic = sum(block.pairs for block in blocks) * sizes.batch_size * weights
    calls = len(blocks) * (BLOCK_ON_CPU if device_type == "cpu" else BLOCK_ON_GPU)
    copies = sum(block.reads for block in blocks) * weights * WEIGHT
    return sizes.steps * (arithmetic + calls) + copies


def _split(sizes: Sizes) -> Pairs:
    """Cut the locations of one axis between neighbours that read by different taps."""
    groups = groupby(range(sizes.tensor_size), key=lambda location: _reading(location, sizes))
    return [(_span(list(locations)), taps) for taps, locations in groups]


def _whole(sizes: Sizes) -> Pairs:
    """Keep all locations of one axis, with every tap by which any of them reads a location."""
    locations = range(sizes.tensor_size)
    taps = [tap for location in locations for tap in _reading(location, sizes)]
    return [(locations, _span(taps))]


def _reading(location: int, sizes: Sizes) -> range:
    """Return the taps by which a location reads a location and not padding."""
    before, _ = padding(sizes.kernel_size)
    last = sizes.tensor_size - 1 - location + before
    return range(max(0, before - location), min(sizes.kernel_size, last + 1))


def _span(numbers: list[int]) -> range:
    return range(min(numbers), max(numbers) + 1)


def moves(
    block: Block, sizes: Sizes
) -> Iterator[tuple[tuple[slice, ...], tuple[int | slice, ...]]]:
    """Yield for each tap the locations of [P..] that are read, and their readers in [G.., R..].

    Both are indices; the second one indexes the reading locations and then the tap.
    """
    for taps in product(*block.taps):
        pairs = [
            _move(locations, tap, sizes)
            for locations, tap in zip(block.locations, taps, strict=True)
        ]
        offsets = [tap - own.start for tap, own in zip(taps, block.taps, strict=True)]
        yield tuple(pair[0] for pair in pairs), (*(pair[1] for pair in pairs), *offsets)


def _move(locations: range, tap: int, sizes: Sizes) -> tuple[slice, slice]:
    """Return for one axis the locations inside the border that are read, and their readers."""
    before, _ = padding(sizes.kernel_size)
    first = locations.start - before + tap  # the source of the first of them
    start, stop = max(first, 0), min(first + len(locations), sizes.tensor_size)
    return slice(start, stop), slice(start - first, stop - first)
