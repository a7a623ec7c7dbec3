"""The comparators against the equations of their papers, a timestep at a time in NumPy.

An oracle is a function of (weights by name, input [B, I], parts of the state [B, n], the layer)
that returns (output, parts).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import variants
from commands import tiny
from oracle import Array, sigmoid
from tlstm import models
from tlstm.layers.comparators.bn_lstm import BNLSTM
from tlstm.layers.comparators.clstm import ConvLSTM
from tlstm.layers.comparators.comparator import Comparator
from tlstm.layers.comparators.dilated_cnn import DilatedCNN
from tlstm.layers.comparators.dilated_gru import GRU, DilatedGRU, run_dilated
from tlstm.layers.comparators.fs_lstm import FSLSTM
from tlstm.layers.comparators.full_capacity_urnn import SLOWNESS, FullCapacityURNN
from tlstm.layers.comparators.hm_lstm import HMLSTM, boundary_of
from tlstm.layers.comparators.hyper_lstm import HyperLSTM
from tlstm.layers.comparators.irnn import IRNN
from tlstm.layers.comparators.lstm import LSTM
from tlstm.layers.comparators.mi_lstm import MILSTM
from tlstm.layers.comparators.mlstm import MLSTM
from tlstm.layers.comparators.qrnn import QRNN, scan
from tlstm.layers.comparators.rhn import RHN
from tlstm.layers.comparators.stanh import STanh
from tlstm.layers.comparators.urnn import PERMUTATION_SEED, URNN
from tlstm.sweeping.grid import SWEEPS, read_runs
from tlstm.training.config import compose, instantiate
from tlstm.training.cuda_graph import restore_tensors
from tlstm.training.network import SequenceNetwork
from tlstm.training.run import make_data, make_module
from variants import (
    BATCH_SIZE,
    INPUT_SIZE,
    STREAM_FORMS,
    assert_close,
    assert_same,
    numpy_parameters,
    outcome,
    random_inputs,
    randomize,
)

# Of three layers of 522 units and a head: no published size
QRNN_NUMBER = 3 * 522 * (2 * 205 + 1) + 2 * 3 * 522 * (2 * 522 + 1) + 205 * 523
# Of four locations of 522 channels and a head: no published size
CLSTM_NUMBER = 4 * 522 * (205 + 3 * 522 + 1) + 205 * 523
NO_DROPOUT = [
    f"model.core.{kind}_dropout=0" for kind in ("symbol", "embedding", "hidden", "output")
]

Weights = dict[str, Array]
Step = Callable[[Weights, Array, list[Array], Any], tuple[Array, list[Array]]]
TIMESTEPS = 6


class Case(NamedTuple):
    """A comparator at a tiny size, and its row's size.

    Attributes:
        layer: the class.
        arguments: of a tiny layer.
        step: the oracle.
        parameters: of the published network; `symbols` in, `classes` out.
        settings: of a tiny network, on the command line.
    """

    layer: type[Comparator]
    arguments: dict[str, Any]
    step: Step
    parameters: int
    symbols: int
    settings: list[str]


# The equations


def gates(activation: Array, number: int = 4) -> list[Array]:
    return np.split(activation, number, axis=-1)


def lstm(w: Weights, x: Array, parts: list[Array], layer: Any) -> tuple[Array, list[Array]]:
    h, c = parts
    i, f, g, o = gates(x @ w["input.weight"].T + h @ w["hidden.weight"].T + w["input.bias"])
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return h, [h, c]


def irnn(w: Weights, x: Array, parts: list[Array], layer: Any) -> tuple[Array, list[Array]]:
    (h,) = parts
    h = np.maximum(x @ w["input.weight"].T + h @ w["hidden.weight"].T + w["input.bias"], 0)
    return h, [h]


def stanh(w: Weights, x: Array, parts: list[Array], layer: Any) -> tuple[Array, list[Array]]:
    history = np.split(parts[0], layer.skip, axis=1)
    a = x @ w["input.weight"].T + w["input.bias"]
    h = np.tanh(a + history[-1] @ w["hidden.weight"].T + history[0] @ w["skipped.weight"].T)
    return h, [np.concatenate([*history[1:], h], axis=1)]


def qrnn(w: Weights, x: Array, parts: list[Array], layer: Any) -> tuple[Array, list[Array]]:
    after = []
    for number in range(layer.depth):
        c, before = parts[2 * number : 2 * number + 2]
        weight, bias = w[f"layers.{number}.weight"], w[f"layers.{number}.bias"]
        z, f, o = gates(np.concatenate([before, x], axis=1) @ weight.T + bias, 3)
        c = sigmoid(f) * c + (1 - sigmoid(f)) * np.tanh(z)
        after += [c, x]
        x = sigmoid(o) * c
    return x, after


def dilated_gru(w: Weights, x: Array, parts: list[Array], layer: Any) -> tuple[Array, list[Array]]:
    after = []
    for number, part in enumerate(parts):
        before, *others = np.split(part, 2**number, axis=1)
        gated, candidate = (
            (w[f"layers.{number}.{name}.weight"].T, w[f"layers.{number}.{name}.bias"])
            for name in ("gates", "candidate")
        )
        r, u = gates(sigmoid(np.concatenate([x, before], axis=1) @ gated[0] + gated[1]), 2)
        c = np.tanh(np.concatenate([x, r * before], axis=1) @ candidate[0] + candidate[1])
        x = u * before + (1 - u) * c
        after.append(np.concatenate([*others, x], axis=1))
    return x, after


def dilated_cnn(w: Weights, x: Array, parts: list[Array], layer: Any) -> tuple[Array, list[Array]]:
    after = []
    for number, part in enumerate(parts):
        before, *others = np.split(part, 2**number, axis=1)
        after.append(np.concatenate([*others, x], axis=1))
        taps = w[f"layers.{number}.weight"]
        x = before @ taps[..., 0].T + x @ taps[..., 1].T + w[f"layers.{number}.bias"]
        x = np.maximum(x, 0)
    return x, after


def mi_lstm(w: Weights, x: Array, parts: list[Array], layer: Any) -> tuple[Array, list[Array]]:
    h, c = parts
    wx, uh = x @ w["input.weight"].T, h @ w["hidden.weight"].T
    p = w["alpha"] * wx * uh + w["beta_hidden"] * uh + w["beta_input"] * wx + w["bias"]
    i, f, o, g = gates(p)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return h, [h, c]


def mlstm(w: Weights, x: Array, parts: list[Array], layer: Any) -> tuple[Array, list[Array]]:
    h, c = parts
    w_mx, *w_x = np.split(w["input.weight"], 5)
    m = (x @ w_mx.T) * (h @ w["hidden.weight"].T)
    i, f, o, candidate = (
        x @ of_x.T + m @ of_m.T
        for of_x, of_m in zip(w_x, np.split(w["intermediate.weight"], 4), strict=True)
    )
    b_i, b_f, b_o, b_h = gates(w["bias"])
    c = sigmoid(f + b_f) * c + sigmoid(i + b_i) * candidate
    h = np.tanh(c * sigmoid(o + b_o) + b_h)
    return h, [h, c]


def rhn(
    w: Weights, x: Array, parts: list[Array], layer: Any, masks: list[Any] | None = None
) -> tuple[Array, list[Array]]:
    of_x, of_embedding, of_s, of_y = masks or [1] * 4
    (s,) = parts
    embedded = (x * of_x) @ w["embedding.weight"].T * of_embedding
    for level in range(layer.depth):
        a = (s * of_s) @ w[f"levels.{level}.weight"].T + w[f"levels.{level}.bias"]
        if level == 0:
            a = a + embedded @ w["input.weight"].T
        h, t = gates(a, 2)
        s = np.tanh(h) * sigmoid(t) + s * (1 - sigmoid(t))
    return s * of_y, [s]


def clstm(w: Weights, x: Array, parts: list[Array], layer: Any) -> tuple[Array, list[Array]]:
    h, c = (np.split(part, layer.tensor_size, axis=1) for part in parts)
    taps, radius = w["hidden.weight"], layer.kernel_size // 2
    h_new, c_new = [], []
    for p in range(layer.tensor_size):
        a = w["hidden.bias"] + (x @ w["input.weight"].T if p == 0 else 0)
        for k in range(layer.kernel_size):
            if 0 <= p + k - radius < layer.tensor_size:
                a = a + h[p + k - radius] @ taps[..., k].T
        i, f, g, o = gates(a)
        c_new.append(sigmoid(f) * c[p] + sigmoid(i) * np.tanh(g))
        h_new.append(sigmoid(o) * np.tanh(c_new[-1]))
    return h_new[-1], [np.concatenate(each, axis=1) for each in (h_new, c_new)]


def bn_lstm(w: Weights, x: Array, parts: list[Array], layer: Any) -> tuple[Array, list[Array]]:
    h, c, t = parts
    row = min(round(t[0, 0]), layer.sequence_length - 1)

    def bn(values: Array, name: str) -> Array:
        mean, variance = w[f"norm_{name}.mean"][row], w[f"norm_{name}.variance"][row]
        if layer.training:
            mean, variance = values.mean(axis=0), values.var(axis=0)
        epsilon = getattr(layer, f"norm_{name}").epsilon
        return w[f"norm_{name}.gain"] * (values - mean) / np.sqrt(variance + epsilon)

    of_h, of_x = bn(h @ w["hidden.weight"].T, "hidden"), bn(x @ w["input.weight"].T, "input")
    g, f, i, o = gates(of_h + of_x + w["bias"])
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(bn(c, "memory") + w["bias_memory"])
    return h, [h, c, t + 1]


def ln_lstm(w: Weights, name: str, a: Array, c: Array) -> tuple[Array, Array]:
    def ln(values: Array, gain: Array, bias: Array) -> Array:
        centred = values - values.mean(axis=1, keepdims=True)
        return gain * centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-3) + bias

    i, g, f, o = (
        ln(gate, w[f"{name}.norm_gates.gain"][number], w[f"{name}.norm_gates.bias"][number])
        for number, gate in enumerate(gates(a))
    )
    c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
    normalized = ln(c, w[f"{name}.norm_memory.weight"], w[f"{name}.norm_memory.bias"])
    return sigmoid(o) * np.tanh(normalized), c


def hyper_lstm(w: Weights, x: Array, parts: list[Array], layer: Any) -> tuple[Array, list[Array]]:
    h, c, h_hyper, c_hyper = parts
    z_size = layer.embedding_size
    a = x @ w["hyper_input.weight"].T + w["hyper_input.bias"]
    a = a + np.concatenate([h, h_hyper], axis=1) @ w["hyper_hidden.weight"].T
    h_hyper, c_hyper = ln_lstm(w, "hyper", a, c_hyper)
    z_hx = h_hyper @ w["embed_scales.weight"].T + w["embed_scales.bias"]
    z_b = h_hyper @ w["embed_bias.weight"].T
    of_h, of_x, b_0 = (
        gates(values) for values in (h @ w["hidden.weight"].T, x @ w["input.weight"].T, w["bias"])
    )
    activations = []
    for gate in range(4):
        start = gate * z_size
        z_h = z_hx[:, start : start + z_size]
        z_x = z_hx[:, 4 * z_size + start : 4 * z_size + start + z_size]
        w_hz, w_xz, w_bz = w["project"][:, gate]
        d_h, d_x, d_b = z_h @ w_hz.T, z_x @ w_xz.T, z_b[:, start : start + z_size] @ w_bz.T
        activations.append(d_h * of_h[gate] + d_x * of_x[gate] + d_b + b_0[gate])
    h, c = ln_lstm(w, "main", np.concatenate(activations, axis=1), c)
    return h, [h, c, h_hyper, c_hyper]


def fs_lstm(w: Weights, x: Array, parts: list[Array], layer: Any) -> tuple[Array, list[Array]]:
    def cell(name: str, state: list[Array], given: Array | None) -> list[Array]:
        h, c = state
        a = h @ w[f"{name}.hidden.weight"].T + w[f"{name}.hidden.bias"]
        if given is not None:
            a = a + given
        h_new, c_new = ln_lstm(w, f"{name}.lstm", a, c)
        of_h, of_c = layer.zoneout_hidden, layer.zoneout_memory
        return [of_h * h + (1 - of_h) * h_new, of_c * c + (1 - of_c) * c_new]

    fast = cell("fast.0", parts[:2], x @ w["embedding.weight"].T @ w["input.weight"].T)
    slow = cell("slow", parts[2:], fast[0] @ w["fast_to_slow.weight"].T)
    fast = cell("fast.1", fast, slow[0] @ w["slow_to_fast.weight"].T)
    for number in range(2, layer.depth):
        fast = cell(f"fast.{number}", fast, None)
    return fast[0], [*fast, *slow]


def unitary_step(
    w: Weights, x: Array, parts: list[Array], matrix: Any, modulus: Any, added: float
) -> tuple[Array, list[Array]]:
    h, t = parts
    real, imaginary = np.split(h, 2, axis=1)
    v, v_i = np.split(w["input.weight"], 2)
    z = (real + 1j * imaginary) @ matrix.T + x @ (v + 1j * v_i).T
    size = modulus(z)
    z = z * np.maximum(size + w["bias"], 0) / (size + added)
    h = np.concatenate([z.real, z.imag], axis=1)
    return h, [h, t + 1]


def urnn(w: Weights, x: Array, parts: list[Array], layer: Any) -> tuple[Array, list[Array]]:
    """W as the product of its factors' matrices."""
    n = layer.units
    generator = torch.Generator().manual_seed(PERMUTATION_SEED)
    order = torch.randperm(n, generator=generator).numpy()
    d_1, d_2, d_3 = (np.diag(np.exp(1j * theta)) for theta in w["phases"])
    r_1, r_2 = (
        np.eye(n) - 2 * np.outer(v.conj(), v) / np.vdot(v, v)
        for v in (row[:n] + 1j * row[n:] for row in w["reflectors"])
    )
    places = np.outer(np.arange(n), np.arange(n))
    fourier = np.exp(-2j * np.pi * places / n) / np.sqrt(n)
    matrix = d_3 @ r_2 @ fourier.conj().T @ d_2 @ np.eye(n)[order] @ r_1 @ fourier @ d_1
    return unitary_step(w, x, parts, matrix, np.abs, 1e-5)


def full_capacity(w: Weights, x: Array, parts: list[Array], layer: Any) -> Any:
    free, first = (w[name][0] + 1j * w[name][1] for name in ("generator", "first"))
    half = (free - free.conj().T) / 400
    one = np.eye(layer.units)
    matrix = np.linalg.inv(one + half) @ (one - half) @ first
    return unitary_step(w, x, parts, matrix, lambda z: np.sqrt(1e-5 + np.abs(z) ** 2), 0)


def hm_lstm(w: Weights, x: Array, parts: list[Array], layer: Any) -> tuple[Array, list[Array]]:
    """The truth table, an example at a time."""
    n, depth, rows = layer.units, layer.depth, []
    for example in range(len(x)):
        state = [part[example] for part in parts]
        below, z_below, after, hidden = w["embedding.weight"] @ x[example], 1.0, [], []
        for number in range(depth):
            h, c = state[3 * number : 3 * number + 2]
            is_top = number == depth - 1
            z = 0.0 if is_top else state[3 * number + 2][0]
            own = {k.split(".", 2)[2]: v for k, v in w.items() if k.startswith(f"layers.{number}.")}
            s = own["recurrent.weight"] @ h + own["recurrent.bias"]
            s = s + z_below * (w[f"bottom_up.{number}.weight"] @ below)
            if not is_top:
                s = s + z * (w[f"top_down.{number}.weight"] @ state[3 * number + 3])
            f, i, o, g = (
                gain * (a - a.mean()) / np.sqrt(a.var() + 1e-3) + bias
                for a, gain, bias in zip(
                    np.split(s[: 4 * n], 4),
                    own["norm_gates.gain"],
                    own["norm_gates.bias"],
                    strict=True,
                )
            )
            is_copy = not z and not z_below
            if not is_copy:
                kept = 0 if z else sigmoid(f) * c
                c = kept + sigmoid(i) * np.tanh(g)
                a = (c - c.mean()) / np.sqrt(c.var() + 1e-3)
                normalized = own["norm_memory.weight"] * a + own["norm_memory.bias"]
                h = sigmoid(o) * np.tanh(normalized)
            below, z_below = h, 0.0 if is_top else float(s[-1] > 0)
            if is_copy and not layer.boundary_on_copy:
                z_below = 0.0
            after += [h, c, np.array([z_below])]
            hidden.append(h)
        rows.append((np.concatenate(hidden), after[:-1]))
    joined = np.stack([hidden for hidden, _ in rows])
    shown = sigmoid(joined @ w["output_gates.weight"].T).repeat(n, axis=1) * joined
    after = [np.stack(each) for each in zip(*(after for _, after in rows), strict=True)]
    return np.maximum(shown @ w["output.weight"].T, 0), after


RHN_TINY = {"channels": 2, "depth": 3, "embedding_size": 2} | dict.fromkeys(
    ("symbol_dropout", "embedding_dropout", "hidden_dropout", "output_dropout"), 0.5
)
HYPER_TINY = {"channels": 3, "hyper_channels": 2, "embedding_size": 2, "dropout": 0.5}
FS_TINY = {"channels": 2, "depth": 3, "slow_channels": 3, "embedding_size": 2} | {
    "dropout": 0.5,
    "zoneout_hidden": 0.25,
    "zoneout_memory": 0.5,
}
HM_TINY = {"channels": 3, "units": 2, "depth": 3, "embedding_size": 2}
CASES = {
    "lstm": Case(LSTM, {"channels": 3}, lstm, 67_850, 1, []),
    "irnn": Case(IRNN, {"channels": 3}, irnn, 11_210, 1, []),
    "stanh": Case(STanh, {"channels": 2, "skip": 3}, stanh, 19_200, 1, ["model.core.skip=3"]),
    "qrnn": Case(QRNN, {"channels": 2, "depth": 2}, qrnn, QRNN_NUMBER, 205, ["model.depth=2"]),
    "dilated_gru": Case(
        DilatedGRU, {"channels": 2, "depth": 3}, dilated_gru, 129_510, 1, ["model.depth=2"]
    ),
    "dilated_cnn": Case(
        DilatedCNN, {"channels": 2, "depth": 3}, dilated_cnn, 46_110, 1, ["model.depth=2"]
    ),
    "bn_lstm": Case(
        BNLSTM,
        {"channels": 2, "sequence_length": 4},
        bn_lstm,
        43_010,
        1,
        ["model.core.sequence_length=8"],
    ),
    "mi_lstm": Case(MILSTM, {"channels": 2}, mi_lstm, 17_007_965, 205, []),
    # The row has no bias of its 205 outputs
    "mlstm": Case(MLSTM, {"channels": 2}, mlstm, 20_394_600 + 205, 205, []),
    "rhn": Case(RHN, RHN_TINY, rhn, 45_994_730, 205, ["model.depth=2", *NO_DROPOUT]),
    "hyper_lstm": Case(
        HyperLSTM,
        HYPER_TINY,
        hyper_lstm,
        26_541_773,
        205,
        ["model.core.hyper_channels=3", "model.core.embedding_size=2", "model.core.dropout=0"],
    ),
    # Without the weights of the zeros that the authors' Fast_3 and Fast_4 read
    "fs_lstm": Case(
        FSLSTM,
        FS_TINY,
        fs_lstm,
        48_065_285 - 2 * 4 * 1200,
        205,
        [
            *("model.depth=3", "model.core.slow_channels=3", "model.core.embedding_size=4"),
            *("model.core.dropout=0", "model.core.zoneout_hidden=0"),
            "model.core.zoneout_memory=0",
        ],
    ),
    "urnn": Case(URNN, {"units": 3}, urnn, 16_394, 1, []),
    "full_capacity_urnn": Case(FullCapacityURNN, {"units": 3}, full_capacity, 537_098, 1, []),
    "hm_lstm": Case(
        HMLSTM,
        HM_TINY,
        hm_lstm,
        36_679_631,
        205,
        ["model.depth=3", "model.core.units=4", "model.core.embedding_size=4"],
    ),
    "clstm": Case(ConvLSTM, {"channels": 2, "tensor_size": 3}, clstm, CLSTM_NUMBER, 205, []),
}
CLASSES = {1: 10, 205: 205}  # of pixels and of characters
for_each = pytest.mark.parametrize("name", CASES)


def make(name: str, **others: Any) -> Any:
    """A float64 layer whose weights are all generic, without dropout."""
    case = CASES[name]
    layer = case.layer(INPUT_SIZE, **case.arguments, dtype=torch.float64, **others)
    return randomize(layer).eval()


def random_state(layer: Any) -> Tensor:
    """A random state, after two timesteps where it counts them, and boundaries of 0 and 1."""
    parts = dict(zip(layer.sizes, layer.split(variants.random_state(layer)), strict=True))
    for name, part in parts.items():
        if name == "t":
            parts[name] = torch.full_like(part, 2)
        if name.startswith("z"):
            parts[name] = (part > 0).to(part.dtype)
    return torch.cat([*parts.values()], dim=1)


def set_boundaries(layer: Any, *values: int) -> None:
    """Let the layers of an HM-LSTM have these z from the next timestep on."""
    for each, value in zip(layer.layers[:-1], values, strict=True):
        torch.nn.init.constant_(each.recurrent.bias[-1:], 1e6 if value else -1e6)


def oracle_run(name: str, layer: Any, inputs: Tensor, state: Tensor) -> tuple[Array, Array]:
    """Outputs [T, B, M] and the last state [B, S]."""
    parts = [part.numpy() for part in layer.split(state)]
    weights = numpy_parameters(layer) | {n: b.numpy() for n, b in layer.named_buffers()}
    outputs = []
    for x in inputs.numpy():
        output, parts = CASES[name].step(weights, x, parts, layer)
        outputs.append(output)
    return np.stack(outputs), np.concatenate(parts, axis=1)


# What holds for every comparator


@for_each
def test_equals_the_equations(name: str) -> None:
    layer, inputs = make(name), random_inputs(TIMESTEPS)
    state = random_state(layer)
    for ours, theirs in zip(
        layer(inputs, state), oracle_run(name, layer, inputs, state), strict=True
    ):
        assert_close(ours, theirs)


@for_each
def test_gradients_equal_those_of_finite_differences(name: str) -> None:
    layer, inputs = make(name), random_inputs(3).requires_grad_()
    state = random_state(layer).requires_grad_()
    if name == "hm_lstm":  # whose boundaries have a gradient of their own where they may change
        set_boundaries(layer, 1, 0)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def forward(inputs: Tensor, state: Tensor, *values: Tensor) -> Any:
        given = dict(zip(names, values, strict=True))
        goes_on = torch.func.functional_call(layer, given, (inputs, state))
        return (*goes_on, torch.func.functional_call(layer, given, (inputs,))[0])

    assert torch.autograd.gradcheck(forward, (inputs, state, *parameters), fast_mode=True)


@for_each
def test_a_sequence_equals_its_chunks_and_steps(name: str) -> None:
    layer, inputs = make(name), random_inputs(TIMESTEPS)
    state = random_state(layer)
    expected = outcome(layer, variants.whole, inputs, state)
    for forward in (variants.step_by_step, *STREAM_FORMS):
        assert_same(outcome(layer, forward, inputs, state), expected)


@pytest.mark.parametrize("name", [name for name in CASES if name != "bn_lstm"])
def test_an_example_ends_with_its_length(name: str) -> None:
    layer, inputs, lengths = make(name), random_inputs(TIMESTEPS), [2, TIMESTEPS]
    state = random_state(layer)
    output, last = layer(inputs, state, lengths=lengths)
    for row, length in enumerate(lengths):
        alone, end = layer(inputs[:length, row], state[row])
        assert_close(output[:length, row], alone)
        assert_close(last[row], end)
        assert not output[length:, row].any()


@for_each
def test_begins_with_zeros(name: str) -> None:
    layer, inputs = make(name), random_inputs()
    zeros = layer.initial_state(BATCH_SIZE)
    assert not zeros.any()
    for ours, theirs in zip(layer(inputs), layer(inputs, zeros), strict=True):
        assert torch.equal(ours, theirs)


@for_each
def test_a_file_makes_the_same_layer(name: str, tmp_path: Path) -> None:
    layer, inputs = make(name), random_inputs()
    layer.to_file(tmp_path / "layer.safetensors")
    again = type(layer).from_file(tmp_path / "layer.safetensors").eval()
    assert torch.equal(again(inputs)[0], layer(inputs)[0])


def test_the_table_of_models_is_drawn_from_the_configurations() -> None:
    text = (models.MODELS / "README.md").read_text(encoding="utf-8")
    assert text == models.page()
    assert "52,521,814" in text  # of Table 1's network, section 3 of the paper's arithmetic


@for_each
def test_the_published_number_of_parameters(name: str) -> None:
    case = CASES[name]
    config = compose(["scale=paper", "task=wikipedia", f"model={name}"]).config
    with torch.device("meta"):
        core = instantiate(config.model.core, input_size=case.symbols)
        network = SequenceNetwork(core, CLASSES[case.symbols])
    assert type(core) is case.layer
    assert core.depth == config.model.depth
    assert sum(parameter.numel() for parameter in network.parameters()) == case.parameters


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ("rhn model.channels=1000", 20_677_230),
        ("rhn model.depth=5", 23_479_730),
        ("fs_lstm model.channels=730", 27_303_975 - 2 * 4 * 730),
        ("fs_lstm model.channels=900 model.depth=2", 27_484_985),
        (
            "hyper_lstm model.channels=1800 model.core.hyper_channels=256",
            18_728_773,
        ),
    ],
)
def test_other_sizes_of_the_papers(settings: str, parameters: int) -> None:
    config = compose(["scale=paper", "task=wikipedia", *f"model={settings}".split()]).config
    with torch.device("meta"):
        network = SequenceNetwork(instantiate(config.model.core, input_size=205), 205)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_table_1_is_run_with_10_million_parameters_a_model() -> None:
    runs = read_runs(SWEEPS / "table1-comparators.yaml", ["scale=paper"])
    for run in runs:
        name = run.config.model.name
        found = models.count("wikipedia_sample", [f"model={name}"])
        assert found == pytest.approx(10_000_000, rel=3e-3)
    assert len(runs) == 6


@for_each
def test_learns_as_every_model_does(name: str, tmp_path: Path) -> None:
    settings = [f"model={name}", "model.depth=1", *CASES[name].settings]
    config = compose(tiny(tmp_path, *settings)).config
    torch.manual_seed(0)
    data = make_data(config)
    module = make_module(config, data)
    batch = next(iter(data.train_dataloader()))
    optimizer = module.configure_optimizers()
    losses = [module._learn(batch, optimizer, Tensor.backward) for _ in range(20)]
    assert losses[-1] < losses[0]
    for parameter_name, parameter in module.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


# torch's own kernel of the LSTM does not take it on every CPU
@pytest.mark.parametrize("name", [name for name in CASES if name != "lstm"])
@torch.no_grad()
def test_runs_in_bfloat16(name: str) -> None:
    layer, inputs = make(name).float(), random_inputs(TIMESTEPS).float()
    with torch.autocast("cpu", torch.bfloat16):
        begun, state = layer(inputs[:3])
        output = torch.cat([begun, layer(inputs[3:], state)[0]])
    assert variants.relative_rms_error(output, layer(inputs)[0]) < 0.03


def test_a_comparator_begins_as_its_paper_says(tmp_path: Path) -> None:
    for setting in ("initialization=embedding", "initialization.bias_range=0"):
        config = compose(tiny(tmp_path, "model=irnn", "model.depth=1", setting)).config
        with pytest.raises(ValueError, match="cannot be: IRNN begins as its paper says"):
            make_module(config, make_data(config))


def test_a_model_of_one_layer_has_no_other_depth(tmp_path: Path) -> None:
    config = compose(tiny(tmp_path, "model=irnn", "model.depth=2")).config
    with pytest.raises(ValueError, match=r"makes depth=1, not model\.depth=2"):
        make_module(config, make_data(config))


# What holds for one of them


def test_lstm_equals_torch_and_begins_with_open_forget_gates() -> None:
    layer, inputs = make("lstm"), random_inputs(TIMESTEPS)
    peer = torch.nn.LSTM(INPUT_SIZE, 3, dtype=torch.float64)
    peer.load_state_dict(
        {
            "weight_ih_l0": layer.input.weight,
            "weight_hh_l0": layer.hidden.weight,
            "bias_ih_l0": layer.input.bias,
            "bias_hh_l0": torch.zeros(12),
        }
    )
    assert_close(layer(inputs)[0], peer(inputs)[0])
    assert LSTM(2, 3).input.bias.tolist() == [0.0] * 3 + [1.0] * 3 + [0.0] * 6


def test_irnn_keeps_what_it_holds() -> None:
    """With V = 0 and b = 0 a state that is not negative stays."""
    layer = IRNN(INPUT_SIZE, 4)
    assert torch.equal(layer.hidden.weight, torch.eye(4))
    assert not layer.input.bias.any()
    torch.nn.init.zeros_(layer.input.weight)
    state = torch.rand(BATCH_SIZE, 4)
    output, last = layer(random_inputs().float(), state)
    assert torch.equal(last, state)
    assert torch.equal(output, state.expand_as(output))


def test_stanh_without_one_of_its_connections() -> None:
    inputs = random_inputs(7)
    layer = make("stanh")
    with torch.no_grad():
        layer.skipped.weight.zero_()
    peer = torch.nn.RNN(INPUT_SIZE, 2, dtype=torch.float64)
    weights = (layer.input.weight, layer.hidden.weight, layer.input.bias)
    none = torch.zeros_like(layer.input.bias)
    peer.load_state_dict(dict(zip(peer.state_dict(), (*weights, none), strict=True)))
    assert_close(layer(inputs)[0], peer(inputs)[0])
    with torch.no_grad():  # s chains that know nothing of each other
        layer.skipped.weight.copy_(layer.hidden.weight)
        layer.hidden.weight.zero_()
    for start in range(3):
        assert_close(layer(inputs)[0][start::3], peer(inputs[start::3])[0])


@pytest.mark.parametrize("timesteps", [1, 2, 7, 100])
def test_a_scan_equals_its_loop_and_its_closed_form(timesteps: int) -> None:
    keep = torch.rand(timesteps, 2, dtype=torch.float64).clamp(0.5).requires_grad_()
    term = torch.randn(timesteps, 2, dtype=torch.float64, requires_grad=True)
    start = torch.randn(1, 2, dtype=torch.float64, requires_grad=True)
    c, looped = start[0], []
    for f, new in zip(keep, term, strict=True):
        c = f * c + new
        looped.append(c)
    product = keep.cumprod(0)
    expected, closed = torch.stack(looped), product * (start + (term / product).cumsum(0))
    scanned = scan(keep, term, start)
    found, wanted = (
        torch.autograd.grad(c.square().sum(), (keep, term, start)) for c in (scanned, expected)
    )
    for ours, theirs in zip((scanned, scanned, *found), (expected, closed, *wanted), strict=True):
        assert_close(ours, theirs, tolerance=1e-10)


def test_qrnn_without_memory_reads_two_timesteps_a_layer() -> None:
    layer, inputs = make("qrnn"), random_inputs(TIMESTEPS)
    with torch.no_grad():
        for linear in layer.layers:
            linear.bias[2:4] = -1e3  # f = 0: h = o ⊙ tanh(z)
    changed = inputs.clone()
    changed[1] += 1
    differs = (layer(inputs)[0] != layer(changed)[0]).any(-1).any(-1)
    assert differs.tolist() == [False, True, True, True, False, False]


def test_qrnn_that_reads_one_timestep_is_a_mingru() -> None:
    layer = QRNN(INPUT_SIZE, 3, 1, dtype=torch.float64)
    with torch.no_grad():
        layer.layers[0].weight[:, :INPUT_SIZE] = 0
        layer.layers[0].bias[6:] = 1e3  # o = 1
    weight, bias = (value.detach().numpy() for value in layer.layers[0].parameters())
    inputs, h = random_inputs(TIMESTEPS), np.zeros((BATCH_SIZE, 3))
    for x, output in zip(inputs.numpy(), layer(inputs)[0], strict=True):
        a = x @ weight[:, INPUT_SIZE:].T + bias
        z = sigmoid(-a[:, 3:6])
        h = (1 - z) * h + z * np.tanh(a[:, :3])
        assert_close(output, h)


@pytest.mark.parametrize("timesteps", [1, 3, 8, 11])
def test_a_dilated_layer_is_grus_side_by_side(timesteps: int) -> None:
    gru = randomize(GRU(INPUT_SIZE, 3, None, torch.float64))
    steps = random_inputs(timesteps)
    before = variants.random_tensor(4, BATCH_SIZE, 3)
    found = run_dilated(gru, steps, before)
    for start in range(min(4, timesteps)):
        assert_close(found[start::4], gru(steps[start::4], before[start]))


def test_only_the_dilations_of_a_gru_reach_back() -> None:
    """The top layer alone, of dilation 4, reads every fourth timestep."""
    layer, inputs = make("dilated_gru"), random_inputs(10)
    for gru in layer.layers[:2]:  # let through what they read: u = 0, and nothing of before
        torch.nn.init.zeros_(gru.gates.weight)
        torch.nn.init.constant_(gru.gates.bias, -1e3)
    for t in range(10):
        changed = inputs.clone()
        changed[t] += 1
        differs = (layer(inputs)[0] != layer(changed)[0]).any(-1).any(-1)
        assert differs.nonzero().flatten().tolist() == list(range(t, 10, 4))


def test_dilated_cnn_sees_1024_timesteps() -> None:
    layer = DilatedCNN(1, 2, 10, dtype=torch.float64)
    for conv in layer.layers:  # all positive, so that no unit is cut off
        torch.nn.init.constant_(conv.weight, 0.5)
    inputs = torch.ones(1030, 1, 1, dtype=torch.float64)
    before = layer(inputs)[0][1025]
    for t, is_seen in ((1026, False), (1025, True), (2, True), (1, False)):
        changed = inputs.clone()
        changed[t] += 1
        assert torch.equal(layer(changed)[0][1025], before) != is_seen


def bn_lstm_in_training(epsilon: float = 1e-5) -> Any:
    layer = make("bn_lstm").train()
    for norm in (layer.norm_input, layer.norm_hidden, layer.norm_memory):
        norm.epsilon = epsilon
    return layer


def test_bn_lstm_in_training_has_the_statistics_of_its_batch() -> None:
    layer = bn_lstm_in_training()
    inputs = random_inputs(TIMESTEPS, 4)
    state = torch.cat([variants.random_tensor(4, 4), torch.full((4, 1), 2.0)], dim=1).double()
    expected = oracle_run("bn_lstm", layer, inputs, state)
    for ours, theirs in zip(layer(inputs, state), expected, strict=True):
        assert_close(ours, theirs)
    # The rows 2 and 3 have been met, the last one again and again
    assert [bool((row != 0).any()) for row in layer.norm_input.mean] == [False, False, True, True]
    of_third = inputs[0] @ layer.input.weight.T
    assert_close(layer.norm_input.mean[2], 0.01 * of_third.mean(0))
    assert_close(layer.norm_input.variance[2], 0.99 + 0.01 * of_third.var(0, correction=0))
    parameters = [p for name, p in layer.named_parameters() if name != "start"]
    assert torch.autograd.gradcheck(
        lambda inputs, *_: layer(inputs, state)[0],
        (inputs.requires_grad_(), *parameters),
        fast_mode=True,
    )


def test_a_measurement_leaves_the_averages_of_bn_lstm(tmp_path: Path) -> None:
    settings = ("model=bn_lstm", "model.depth=1", "model.core.sequence_length=8")
    config = compose(tiny(tmp_path, *settings)).config
    data = make_data(config)
    module = make_module(config, data).train()
    batch = next(iter(data.train_dataloader()))
    averages = module.network.core.norm_input.mean
    with restore_tensors(module.recurrent_state(batch)):
        module.loss(batch)
        assert averages.any()
    assert not averages.any()


def test_bn_lstm_does_not_depend_on_the_scale_of_its_weights() -> None:
    layer, inputs = bn_lstm_in_training(1e-12), random_inputs(TIMESTEPS, 4)
    state = torch.cat([variants.random_tensor(4, 4), torch.ones(4, 1)], dim=1).double()
    before = layer(inputs, state)[0]
    with torch.no_grad():
        layer.hidden.weight *= 3
    assert_close(layer(inputs, state)[0], before, tolerance=1e-8)


def test_bn_lstm_without_its_statistics_is_an_lstm() -> None:
    layer, inputs = make("bn_lstm"), random_inputs(TIMESTEPS)
    peer = LSTM(INPUT_SIZE, 2, dtype=torch.float64)
    with torch.no_grad():
        layer.start.zero_()
        layer.bias_memory.zero_()
        for norm in (layer.norm_input, layer.norm_hidden, layer.norm_memory):
            norm.variance.fill_(1 - norm.epsilon)
            norm.gain.fill_(1)
        pairs = ((peer.input.weight, layer.input.weight), (peer.hidden.weight, layer.hidden.weight))
        for theirs, ours in (*pairs, (peer.input.bias, layer.bias)):
            g, f, i, o = ours.chunk(4)
            theirs.copy_(torch.cat([i, f, g, o]))
    assert_close(layer(inputs)[0], peer(inputs)[0])


def test_bn_lstm_begins_as_published() -> None:
    torch.manual_seed(0)
    layer = BNLSTM(1, 100, 784, noise=0.1)
    assert sum(buffer.numel() for buffer in layer.buffers()) == 1_411_200
    assert torch.equal(layer.hidden.weight[:100], torch.eye(100))
    of_gates = layer.hidden.weight[100:]
    torch.testing.assert_close(of_gates.T @ of_gates, torch.eye(100), rtol=0, atol=1e-5)
    assert (layer.norm_hidden.gain == 0.1).all()
    hidden, memory, _ = layer.begin(layer.split(layer.initial_state(50)))
    assert 0.09 < hidden.std() < 0.11
    assert not memory.any()
    with pytest.raises(ValueError, match="lengths cannot be given: BN-LSTM normalizes"):
        layer(torch.zeros(3, 2, 1), lengths=[3, 2])


def test_mi_lstm_without_products_is_an_lstm() -> None:
    layer, peer = make("mi_lstm"), LSTM(INPUT_SIZE, 2, dtype=torch.float64)
    with torch.no_grad():
        layer.alpha.zero_()
        layer.beta_hidden.fill_(1)
        layer.beta_input.fill_(1)
        for theirs, ours in (
            (peer.input.weight, layer.input.weight),
            (peer.hidden.weight, layer.hidden.weight),
            (peer.input.bias, layer.bias),
        ):
            i, f, o, g = ours.chunk(4)
            theirs.copy_(torch.cat([i, f, g, o]))
    inputs, state = random_inputs(), random_state(layer)
    ours, theirs = (outcome(each, variants.whole, inputs, state) for each in (layer, peer))
    shared = [name for name in theirs if "weight" not in name and "bias" not in name]
    assert_same({n: ours[n] for n in shared}, {n: theirs[n] for n in shared})
    i, f, o, g = ours["gradient of hidden.weight"].chunk(4)
    assert_close(torch.cat([i, f, g, o]), theirs["gradient of hidden.weight"])


def test_mlstm_with_m_equal_to_h_is_an_lstm_of_its_equations() -> None:
    layer, inputs = make("mlstm"), random_inputs()
    with torch.no_grad():
        layer.hidden.weight.copy_(torch.eye(2))
        layer.input.weight[:2] = 1
    inputs[...] = torch.tensor([1.0, 0.0])  # one-hot, so that W_mx x = 1
    h = c = torch.zeros(BATCH_SIZE, 2, dtype=torch.float64)
    b_i, b_f, b_o, b_h = layer.bias.chunk(4)
    for x, output in zip(inputs, layer(inputs)[0], strict=True):
        i, f, o, g = (x @ layer.input.weight[2:].T + h @ layer.intermediate.weight.T).chunk(4, -1)
        c = torch.sigmoid(f + b_f) * c + torch.sigmoid(i + b_i) * g
        h = torch.tanh(c * torch.sigmoid(o + b_o) + b_h)
        assert_close(output, h)


def test_rhn_draws_its_masks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, inputs = make("rhn").train(), random_inputs(TIMESTEPS)
    masks: list[Tensor] = []
    draw = layer._mask

    def noted(tensor: Tensor, share: float) -> Tensor:
        masks.append(draw(tensor, share))
        return masks[-1]

    monkeypatch.setattr(layer, "_mask", noted)
    torch.manual_seed(2)
    outputs, _ = layer(inputs)
    assert len(masks) == 4
    assert {value for mask in masks for value in mask.flatten().tolist()} == {0.0, 2.0}
    parts = [np.zeros((BATCH_SIZE, 2))]
    for x, output in zip(inputs.numpy(), outputs, strict=True):
        weights, drawn = numpy_parameters(layer), [mask.numpy() for mask in masks]
        expected, parts = rhn(weights, x, parts, layer, drawn)
        assert_close(output, expected)


def test_rhn_carries_its_state_and_stays_bounded() -> None:
    layer, inputs = make("rhn"), random_inputs(20)
    state = random_state(layer).clamp(-1, 1)
    assert layer(inputs, state)[0].abs().max() <= 1
    with torch.no_grad():
        for level in layer.levels:
            level.bias[2:] = -1e3
    assert_close(layer(inputs, state)[0], state.expand(20, -1, -1))
    bias = RHN(2, 3, 2, 4).levels[1].bias
    assert (bias[3:] == -4).all()
    assert bias[:3].abs().max() <= 0.04


def test_clstm_of_one_location_is_an_lstm() -> None:
    layer, peer = ConvLSTM(INPUT_SIZE, 3, 1, dtype=torch.float64), make("lstm")
    with torch.no_grad():
        peer.input.weight.copy_(layer.input.weight)
        peer.input.bias.copy_(layer.hidden.bias)
        peer.hidden.weight.copy_(layer.hidden.weight[..., 1])
    inputs, state = random_inputs(), random_state(layer)
    for ours, theirs in zip(layer(inputs, state), peer(inputs, state), strict=True):
        assert_close(ours, theirs)


def test_clstm_of_kernel_1_is_lstms_with_the_same_weights() -> None:
    layer = ConvLSTM(INPUT_SIZE, 3, 2, kernel_size=1, dtype=torch.float64)
    one = ConvLSTM(INPUT_SIZE, 3, 1, kernel_size=1, dtype=torch.float64)
    one.load_state_dict(layer.state_dict())
    inputs, state = random_inputs(), random_state(layer)
    hidden, memory = (part.chunk(2, dim=1) for part in layer.split(state))
    last = layer(inputs, state)[1]
    for place, reads in enumerate((inputs, torch.zeros_like(inputs))):
        alone = one(reads, torch.cat([hidden[place], memory[place]], dim=1))[1]
        for ours, theirs in zip(layer.split(last), one.split(alone), strict=True):
            assert_close(ours.chunk(2, dim=1)[place], theirs)


def test_clstm_equals_the_tlstm_without_memory_convolution() -> None:
    """With W^x = W^h_left Wˣ, and the bias of the input as a feature that is 1."""
    tensorized = variants.make_layer(variants.oracle.Options(2, 3, 3, memory_convolution=False))
    layer = ConvLSTM(INPUT_SIZE + 1, variants.CHANNELS, 3, dtype=torch.float64)

    def rows(tensor: Tensor) -> Tensor:
        g, i, f, o = tensor.chunk(4)
        return torch.cat([i, f, g, o])

    with torch.no_grad():
        left = rows(tensorized.weight_hidden[..., 0])
        layer.hidden.weight.copy_(rows(tensorized.weight_hidden))
        layer.hidden.bias.copy_(rows(tensorized.bias_hidden))
        entry = torch.cat([tensorized.weight_input, tensorized.bias_input.unsqueeze(1)], dim=1)
        layer.input.weight.copy_(left @ entry)
    inputs = random_inputs(TIMESTEPS)
    with_one = torch.cat([inputs, torch.ones_like(inputs[..., :1])], dim=-1)
    assert_close(layer(with_one)[0], tensorized(inputs, stream=True)[0])


def test_hyper_lstm_with_scales_of_one_is_an_lstm_with_layer_normalization() -> None:
    layer, inputs = make("hyper_lstm"), random_inputs(TIMESTEPS)
    with torch.no_grad():
        layer.embed_scales.weight.zero_()
        layer.embed_scales.bias.fill_(1)
        layer.project[:2] = 1 / layer.embedding_size
        layer.project[2] = 0
    h = c = torch.zeros(BATCH_SIZE, 3, dtype=torch.float64)
    for x, output in zip(inputs, layer(inputs)[0], strict=True):
        h, c = layer.main(layer.input(x) + layer.hidden(h) + layer.bias, c)
        assert_close(output, h)


def test_hyper_lstm_begins_as_published() -> None:
    layer = HyperLSTM(5, 6, 3, 4)
    zeros = layer.initial_state(2)
    scale_h, scale_x, bias = layer._scales_and_bias(layer.split(zeros)[2] + 1)
    torch.testing.assert_close(scale_h, torch.full((2, 24), 0.1))
    torch.testing.assert_close(scale_x, scale_h)
    assert not bias.any()
    for gate in range(4):
        rows = slice(3 * gate, 3 * gate + 3)
        joined = [layer.hyper_input.weight[rows], layer.hyper_hidden.weight[rows, :6]]
        for matrix in (torch.cat(joined, dim=1), layer.hyper_hidden.weight[rows, 6:]):
            torch.testing.assert_close(matrix @ matrix.T, torch.eye(3), rtol=0, atol=1e-5)


def test_fs_lstm_whose_fast_cells_do_not_read_the_slow_one() -> None:
    layer, inputs = make("fs_lstm"), random_inputs()
    torch.nn.init.zeros_(layer.slow_to_fast.weight)
    layer(inputs)[0].sum().backward()
    for parameter in layer.slow.parameters():
        assert not parameter.grad.any()


def test_fs_lstm_zones_out() -> None:
    """Training keeps the share of the numbers that entered a cell, and dropout is of its own."""
    torch.manual_seed(0)
    sizes = {"depth": 2, "slow_channels": 50, "embedding_size": 3}
    layer = FSLSTM(INPUT_SIZE, 50, **sizes, zoneout_hidden=1, zoneout_memory=1)
    state = torch.randn(20, 200)
    for mode in (True, False):
        assert torch.equal(layer.train(mode)(torch.randn(3, 20, INPUT_SIZE), state)[1], state)
    cell = FSLSTM(INPUT_SIZE, 50, **sizes, zoneout_hidden=0.05, zoneout_memory=0.3).slow
    before = torch.randn(2, 200, 50)
    for share, old, new in zip((0.05, 0.3), before, cell(*before), strict=True):
        assert float((old == new).float().mean()) == pytest.approx(share, abs=0.02)
    assert (cell.lstm.norm_gates.gain == 1).all()
    weight = cell.hidden.weight  # orthogonal as a whole, with a column for each unit
    torch.testing.assert_close(weight.T @ weight, torch.eye(50), rtol=0, atol=1e-5)


UNITARY = {"urnn": URNN, "full_capacity_urnn": FullCapacityURNN}
for_both = pytest.mark.parametrize("kind", UNITARY.values(), ids=UNITARY)


def error_of(matrix: Tensor) -> float:
    """The largest entry of W^H W − I."""
    return float((matrix.mH @ matrix - torch.eye(len(matrix))).detach().abs().max())


@for_both
def test_a_unitary_matrix_stays_unitary(kind: type[URNN]) -> None:
    torch.manual_seed(0)
    layer, inputs = kind(1, 16, dtype=torch.float64), torch.randn(5, 4, 1, dtype=torch.float64)
    assert error_of(layer.matrix()) < 1e-14
    first, losses = layer.matrix().detach(), []
    slow = [{"params": [layer.generator], "lr": 2.0}] if kind is FullCapacityURNN else []
    others = [value for name, value in layer.named_parameters() if name != "generator"]
    optimizer = torch.optim.Adam([{"params": others}, *slow], lr=0.01)
    for _ in range(50):
        losses.append((layer(inputs)[0][-1] - 0.3).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    assert (layer.matrix() - first).abs().max() > 0.1
    assert error_of(layer.matrix()) < 1e-13
    assert error_of(kind(1, 512).matrix()) < 2e-6


@for_both
def test_a_unitary_rnn_keeps_the_size_of_its_state(kind: type[URNN]) -> None:
    layer = kind(1, 64, dtype=torch.float64)
    for parameter in (layer.bias, layer.input.weight):
        torch.nn.init.zeros_(parameter)
    sizes = layer(torch.ones(100, 2, 1, dtype=torch.float64))[0].norm(dim=-1) / layer.start.norm()
    # The uRNN's 10⁻⁵ beside |z| takes some of it at every timestep
    tolerance = 1e-2 if kind is URNN else 1e-12
    assert_close(sizes, torch.ones_like(sizes), tolerance=tolerance)


@for_both
def test_a_unitary_rnn_has_gradients_at_zero(kind: type[URNN]) -> None:
    layer = kind(1, 4)
    torch.nn.init.zeros_(layer.start)
    layer(torch.zeros(3, 2, 1))[0].sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_gradient_descent_makes_the_published_step_of_a_unitary_matrix() -> None:
    torch.manual_seed(0)
    layer, rate = FullCapacityURNN(1, 5, dtype=torch.float64), 1e-4
    target = torch.randn(5, 5, dtype=torch.complex128)

    def loss(matrix: Tensor) -> Tensor:
        return (matrix * target).real.tanh().sum()

    w = layer.matrix().detach().requires_grad_()
    (g,) = torch.autograd.grad(loss(w), w)
    w = w.detach()
    skew, one = g @ w.mH - w @ g.mH, torch.eye(5)
    published = torch.linalg.inv(one + rate / 2 * skew) @ (one - rate / 2 * skew) @ w
    loss(layer.matrix()).backward()
    with torch.no_grad():
        layer.generator -= rate / 2 * SLOWNESS**2 * layer.generator.grad
    assert_close(layer.matrix(), published)
    fell = float(loss(w) - loss(published))
    assert fell == pytest.approx(rate / 2 * float(skew.abs().square().sum()), rel=1e-2)


@pytest.mark.parametrize("boundary_on_copy", [True, False])
def test_hm_lstm_equals_its_truth_table(boundary_on_copy: bool) -> None:
    """Both ways of COPY, over a batch in which every operation occurs."""
    torch.manual_seed(0)
    layer = randomize(HMLSTM(INPUT_SIZE, **HM_TINY, boundary_on_copy=boundary_on_copy).double())
    inputs, state = random_inputs(5, 40), torch.randn(40, 14, dtype=torch.float64)
    parts = dict(zip(layer.sizes, layer.split(state), strict=True))
    for name in ("z_0", "z_1"):
        parts[name] = (parts[name] > 0).double()
    state = torch.cat([*parts.values()], dim=1)
    output, last = layer(inputs, state)
    weights, expected = numpy_parameters(layer), [part.numpy() for part in parts.values()]
    met = set()
    for x, found in zip(inputs.numpy(), output, strict=True):
        before = expected
        wanted, expected = hm_lstm(weights, x, expected, layer)
        assert_close(found, wanted)
        met |= set(zip(before[5][:, 0], expected[2][:, 0], strict=True))
    assert_close(last, np.concatenate(expected, axis=1))
    assert len(met) == 4  # z of layer 2 before, z of layer 1


@pytest.mark.parametrize("z_below", [0, 1])
@pytest.mark.parametrize("z", [0, 1])
def test_hm_lstm_updates_copies_or_flushes(z: int, z_below: int) -> None:
    """Layer 2 after one timestep: what of its own state and of the layers around it is read."""
    layer, inputs = make("hm_lstm"), random_inputs(1)
    set_boundaries(layer, z_below, 0)
    names = list(layer.sizes)

    def second(**changes: float) -> Tensor:
        parts = dict(zip(names, layer.split(random_state(layer)), strict=True))
        parts["z_1"] = torch.full_like(parts["z_1"], z)
        for name, change in changes.items():
            parts[name] = parts[name] + change * torch.arange(2)
        after = layer(inputs, torch.cat([*parts.values()], dim=1))[1]
        return torch.cat(layer.split(after)[3:5], dim=1)

    parts = layer.split(random_state(layer))
    is_copy = not z and not z_below
    assert torch.equal(second(), torch.cat(parts[3:5], dim=1)) == is_copy
    reads_memory = not torch.equal(second(), second(c_1=1.0))
    assert reads_memory == (not z)
    reads_above = not torch.equal(second(), second(h_2=1.0))
    assert reads_above == bool(z)
    reads_below = not torch.equal(second(), second(h_0=1.0))
    assert reads_below == bool(z_below)


def test_hm_lstm_without_boundaries_is_its_first_layer() -> None:
    layer, inputs = make("hm_lstm"), random_inputs(TIMESTEPS)
    set_boundaries(layer, 0, 0)
    state = random_state(layer)
    state[:, [4, 9]] = 0
    last = layer(inputs, state)[1]
    assert torch.equal(last[:, 5:9], state[:, 5:9])
    assert torch.equal(last[:, 10:], state[:, 10:])
    first = layer.layers[0]
    h, c = layer.split(state)[:2]
    for x in inputs:
        f, i, o, g = first.norm_gates(
            (first.recurrent(h) + layer.bottom_up[0](layer.embedding(x)))[:, :8]
        )
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(first.norm_memory(c))
    assert_close(last[:, :4], torch.cat([h, c], dim=1))
    layer(inputs)[0].sum().backward()
    for each in layer.layers[:-1]:
        assert not each.recurrent.weight.grad[-1].any()


def test_a_boundary_has_the_gradient_of_a_hard_sigmoid() -> None:
    x = torch.tensor([-2.0, -0.5, -1e-9, 1e-9, 0.5, 2.0], requires_grad=True)
    z = boundary_of(x)
    z.sum().backward()
    assert z.tolist() == [0, 0, 0, 1, 1, 1]
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0.5, 0.5, 0.5, 0.5, 0]
