"""The equations of section 2 of paper.md, as loops over timesteps, locations, taps and channels.

NumPy and float64 only, and nothing of the package: an independent reading that everything else is
compared with. The numbers (1) to (6) are the paper's steps of section 2.

Dimension letters of this file:
    T, B    timesteps, examples
    P..     the S = rank − 1 location axes; p is a tuple of S location numbers, counted from 1
    M, O    channels, channels that the hidden convolution makes
    K..     the kernel's axes, one for each location axis; k is a tuple of S tap numbers from 0
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Place = tuple[int, ...]

NORMALIZATION_EPSILON = 1e-5


@dataclass(frozen=True)
class Options:
    """The options of a layer, by the layer's own names; `gated` is False for the tRNN."""

    rank: int = 2
    tensor_size: int = 2
    kernel_size: int = 3
    gated: bool = True
    memory_convolution: bool = True
    normalization: Literal["channel", "layer"] | None = None

    @property
    def axes(self) -> int:
        return self.rank - 1

    @property
    def radius(self) -> int:
        return (self.kernel_size - self.kernel_size % 2) // 2

    @property
    def depth(self) -> int:
        """The number of timesteps until r locations a timestep have made P locations."""
        timesteps = 0
        while timesteps * self.radius < self.tensor_size:
            timesteps += 1
        return timesteps


@dataclass(frozen=True)
class Trace:
    """Every timestep that ran: the hidden state at the last corner, and the states."""

    corners: Array  # [steps, B, M]
    hiddens: list[Array]  # steps times [B, P.., M]
    cells: list[Array]  # the same; empty for the tRNN


def run(
    parameters: dict[str, Array],
    inputs: Array,
    options: Options,
    hidden: Array | None = None,
    cell: Array | None = None,
    flush: int = 0,
) -> Trace:
    """T timesteps that read inputs [T, B, input_size], then `flush` with a zero projected input."""
    batch_size, channels = inputs.shape[1], len(parameters["bias_input"])
    zeros = np.zeros((batch_size, *[options.tensor_size] * options.axes, channels))
    hidden = zeros if hidden is None else hidden
    cell = zeros if cell is None else cell
    corners, hiddens, cells = [], [], []
    for t in range(len(inputs) + flush):
        projected = (
            project(inputs[t], parameters["weight_input"], parameters["bias_input"])
            if t < len(inputs)
            else np.zeros((batch_size, channels))
        )
        hidden, cell = step(projected, hidden, cell, parameters, options)
        corners.append(hidden[at((options.tensor_size,) * options.axes)])  # (6) h_t[P,..,P]
        hiddens.append(hidden)
        cells.append(cell)
    return Trace(np.stack(corners), hiddens, cells if options.gated else [])


def step(
    projected: Array, hidden: Array, cell: Array, parameters: dict[str, Array], options: Options
) -> tuple[Array, Array]:
    """H_t and C_t from x_t Wˣ + bˣ, H_{t−1} and C_{t−1}; the tRNN hands its cell on unread."""
    channels = hidden.shape[-1]
    activation = convolve_hidden(
        concatenate(projected, hidden, options),
        parameters["weight_hidden"],
        parameters["bias_hidden"],
        options,
    )
    if not options.gated:
        return np.tanh(activation), cell  # (3)

    next_cell, out = np.zeros_like(cell), np.zeros_like(hidden)
    for p in locations(options):
        kernels = softmax(activation[at(p)][:, 4 * channels :])  # (5), empty without it
        for m in range(channels):
            a_g, a_i, a_f, a_o = (activation[at(p)][:, n * channels + m] for n in range(4))
            carried = (
                convolve_memory(cell, m, p, kernels, options)
                if options.memory_convolution
                else cell[at(p)][:, m]
            )
            # (4), (5) C_t = G ⊙ I + C^conv_{t−1} ⊙ F
            next_cell[at(p)][:, m] = np.tanh(a_g) * sigmoid(a_i) + carried * sigmoid(a_f)
            out[at(p)][:, m] = sigmoid(a_o)
    # (4), (5) H_t = tanh(Norm(C_t)) ⊙ O
    return np.tanh(normalize(next_cell, parameters, options)) * out, next_cell


def project(inputs: Array, weight: Array, bias: Array) -> Array:
    """(1) x_t Wˣ + bˣ: [B, input_size] → [B, M]."""
    projected = np.zeros((len(inputs), len(bias)))
    for m in range(len(bias)):
        projected[:, m] = inputs @ weight[m] + bias[m]
    return projected


def concatenate(projected: Array, hidden: Array, options: Options) -> Array:
    """(1) Hcat_{t−1}, with P + 1 locations along each axis: [B, (P+1).., M]."""
    batch_size, channels = projected.shape
    concatenated = np.zeros((batch_size, *[options.tensor_size + 1] * options.axes, channels))
    for p in product(range(1, options.tensor_size + 2), repeat=options.axes):
        if all(p_d == 1 for p_d in p):
            concatenated[at(p)] = projected
        elif all(p_d > 1 for p_d in p):
            concatenated[at(p)] = hidden[at(tuple(p_d - 1 for p_d in p))]
    return concatenated


def convolve_hidden(concatenated: Array, weight: Array, bias: Array, options: Options) -> Array:
    """(2) A_t = Hcat_{t−1} ⊛ {Wʰ, bʰ}: zeros r − 1 before and K − 1 − r after every axis."""
    zeros = (options.radius - 1, options.kernel_size - 1 - options.radius)
    padded = np.pad(concatenated, [(0, 0), *[zeros] * options.axes, (0, 0)])
    shape = (len(concatenated), *[options.tensor_size] * options.axes, len(bias))
    activation = np.zeros(shape)
    for p in locations(options):
        activation[at(p)] = bias
        for k in taps(options):
            source = tuple(p_d + k_d for p_d, k_d in zip(p, k, strict=True))
            for m in range(concatenated.shape[-1]):
                read = padded[at(source)][:, m, np.newaxis]  # [B, 1]
                tap: tuple[slice | int, ...] = (slice(None), m, *k)
                activation[at(p)] += read * weight[tap]
    return activation


def convolve_memory(cell: Array, m: int, p: Place, kernels: Array, options: Options) -> Array:
    """(5) C^conv_{t−1}[p] = Σ_k W^c_t(p)[k] · C_{t−1}[p−r+k] of channel m, over copied borders."""
    convolved = np.zeros(len(cell))
    for number, k in enumerate(taps(options)):
        source = tuple(
            min(max(p_d - options.radius + k_d, 1), options.tensor_size)
            for p_d, k_d in zip(p, k, strict=True)
        )
        convolved += kernels[:, number] * cell[at(source)][:, m]
    return convolved


def normalize(cell: Array, parameters: dict[str, Array], options: Options) -> Array:
    """Norm(C_t): by location over its channels (CN), by example over everything (LN), or not."""
    if options.normalization is None:
        return cell
    gain, bias = parameters["normalization_gain"], parameters["normalization_bias"]
    normalized = np.zeros_like(cell)
    for b in range(len(cell)):
        for p in locations(options):
            place = at(p)[1:]
            by_layer = options.normalization == "layer"
            values = cell[b] if by_layer else cell[b][place]
            mean = values.sum() / values.size
            variance = ((values - mean) ** 2).sum() / values.size
            for m in range(cell.shape[-1]):
                standard = (cell[b][place][m] - mean) / np.sqrt(variance + NORMALIZATION_EPSILON)
                own = (m,) if by_layer else (*place, m)  # Γ and B have C_t's shape with CN
                normalized[b][place][m] = standard * gain[own] + bias[own]
    return normalized


def softmax(logits: Array) -> Array:
    """(5) over the last axis."""
    exponentials = np.exp(logits)
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def sigmoid(activation: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-activation)))


def locations(options: Options) -> Iterator[Place]:
    """Every p, row-major, counted from 1 as the paper does."""
    return product(range(1, options.tensor_size + 1), repeat=options.axes)


def taps(options: Options) -> Iterator[Place]:
    """Every k, row-major: the order of the kernel's logits."""
    return product(range(options.kernel_size), repeat=options.axes)


def at(place: Place) -> tuple[slice | int, ...]:
    """The index of a location, counted from 1, in an array [B, .., M] of any number of axes."""
    return (slice(None), *(p_d - 1 for p_d in place))
