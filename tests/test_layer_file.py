"""Layers in files: the same bits again, no code, and clear words where it cannot be."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn
from torch.nn.utils import parametrizations

from commands import load, measure_quickly, refused, run_directory, tiny, train_here
from tlstm import TensorizedLSTM, TensorizedRNN, export
from tlstm.layers.serialization import read_about, read_head
from tlstm.layers.stacked import StackedLSTM, StackedRNN
from tlstm.records.schema import read_record
from tlstm.training.config import compose
from tlstm.training.run import make_data, make_module
from variants import randomize

LAYERS: dict[str, Callable[..., Any]] = {
    "2D": lambda **o: TensorizedLSTM(3, 4, 2, **o),
    "3D, CN": lambda **o: TensorizedLSTM(3, 4, 3, rank=3, normalization="channel", **o),
    "4D, LN, K = 2": lambda **o: TensorizedLSTM(3, 4, 2, 4, 2, normalization="layer", **o),
    "without M": lambda **o: TensorizedLSTM(
        3, 4, 2, memory_convolution=False, forget_bias=4.0, batch_first=True, **o
    ),
    "tRNN": lambda **o: TensorizedRNN(3, 4, 2, rank=3, kernel_size=4, **o),
    "sLSTM": lambda **o: StackedLSTM(3, 4, 2, shared=False, **o),
    "sRNN": lambda **o: StackedRNN(3, 4, 2, **o),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny run."""
    output_dir = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        measure_quickly(patch)
        train_here(tiny(output_dir, "model=tlstm_3d_cn"))
    return run_directory(output_dir)


# The same again


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_a_layer_comes_back_bit_by_bit(
    make: Callable[..., Any], dtype: torch.dtype, tmp_path: Path
) -> None:
    layer = randomize(make(dtype=dtype))
    layer.to_file(tmp_path / "layer.safetensors")
    again = type(layer).from_file(tmp_path / "layer.safetensors")
    assert repr(again) == repr(layer)
    assert again.batch_first == layer.batch_first
    assert again.state_dict().keys() == layer.state_dict().keys()
    inputs = torch.randn(5, 2, 3, dtype=dtype)
    (output, state), (expected, last) = again(inputs), layer(inputs)
    assert output.dtype == dtype
    assert torch.equal(output, expected)
    assert all(map(torch.equal, state, last))


def test_another_dtype_can_be_asked_for(tmp_path: Path) -> None:
    layer = TensorizedLSTM(3, 4, 2)
    layer.to_file(tmp_path / "layer.safetensors")
    again = TensorizedLSTM.from_file(tmp_path / "layer.safetensors", dtype=torch.float64)
    assert torch.equal(again.weight_hidden, layer.weight_hidden.double())


def test_a_trained_network_comes_back_bit_by_bit(trained: Path, tmp_path: Path) -> None:
    """Layer and head beside the network of the checkpoint, on its task's samples."""
    file = tmp_path / "model.safetensors"
    assert export.main([str(trained), str(file)]) == 0
    config = compose(tiny(tmp_path, "model=tlstm_3d_cn")).config
    data = make_data(config)
    module = make_module(config, data)
    module.load_state_dict(load(trained, "best")["state_dict"])
    tokens = torch.stack([sample.inputs for sample in data.test_set])

    layer, head = TensorizedLSTM.from_file(file), read_head(file)
    one_hot = nn.functional.one_hot(tokens.T, data.input_size).float()
    output, _ = layer(one_hot)
    with torch.no_grad():
        assert torch.equal(head(output.transpose(0, 1)), module.network(tokens))


def test_the_file_says_where_it_comes_from(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    export.main([str(trained), str(file)])
    about, record = read_about(file), read_record(trained / "record.json")
    assert about["record"] == record.model_copy(update={"curve": []}).model_dump(mode="json")
    assert about["tokens"] == [*"abcdefgh", "-"]
    assert about["alphabet"] is None


def test_others_can_read_the_file(tmp_path: Path) -> None:
    layer, head = TensorizedLSTM(3, 4, 2), nn.Linear(4, 5)
    layer.to_file(tmp_path / "layer.safetensors", head, {"name": "mine"})
    tensors = safetensors.torch.load_file(tmp_path / "layer.safetensors")
    expected = {f"layer.{name}": value for name, value in layer.state_dict().items()}
    expected |= {f"head.{name}": value for name, value in head.state_dict().items()}
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], value) for name, value in expected.items())
    assert read_about(tmp_path / "layer.safetensors") == {"name": "mine"}


# Whatever is wrong


@pytest.fixture
def file(tmp_path: Path) -> Path:
    TensorizedLSTM(3, 4, 2).to_file(tmp_path / "layer.safetensors")
    return tmp_path / "layer.safetensors"


def changed(file: Path, tensors: dict[str, Any], **metadata: str) -> None:
    """Write the file again with some tensors and metadata changed."""
    with safe_open(file, framework="pt") as opened:
        kept = opened.metadata() | metadata
    safetensors.torch.save_file(safetensors.torch.load_file(file) | tensors, file, kept)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"layer\.safetensors"):
        TensorizedLSTM.from_file(tmp_path / "layer.safetensors")


def test_a_layer_of_another_class_is_named(file: Path) -> None:
    with pytest.raises(ValueError, match=r"holds a TensorizedLSTM, not a TensorizedRNN"):
        TensorizedRNN.from_file(file)


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_damaged_file(length: int, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"layer\.safetensors holds no layer of tlstm, or it is"):
        TensorizedLSTM.from_file(file)


def test_a_file_of_something_else_or_of_another_version(file: Path) -> None:
    changed(file, {}, format="tlstm 2")
    with pytest.raises(ValueError, match="holds no layer of tlstm"):
        TensorizedLSTM.from_file(file)
    safetensors.torch.save_file({"weight": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match="holds no layer of tlstm"):
        TensorizedLSTM.from_file(file)


@pytest.mark.parametrize(
    "arguments",
    [
        *[
            {"channels": 5},
            {"tensor_size": 0},
            {"colour": "red"},
            {"kernel_size": 2},
            {"rank": "3"},
        ],
        *({name: 10**9} for name in ("rank", "channels", "input_size", "kernel_size")),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_the_weights(arguments: dict[str, Any], file: Path) -> None:
    own = {"input_size": 3, "channels": 4, "tensor_size": 2}
    changed(file, {}, arguments=json.dumps(own | arguments))
    with pytest.raises(ValueError, match="does not make a TensorizedLSTM"):
        TensorizedLSTM.from_file(file)


def test_weights_that_are_missing_or_too_many(file: Path) -> None:
    changed(file, {"layer.more": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"Unexpected key.*more"):
        TensorizedLSTM.from_file(file)


def test_a_file_without_a_head(file: Path) -> None:
    with pytest.raises(ValueError, match="holds a layer without a head"):
        read_head(file)
    changed(file, {"head.weight": torch.zeros(2)})
    with pytest.raises(ValueError, match="does not make a head"):
        read_head(file)


class WithMore(TensorizedLSTM):
    """A subclass whose arguments are not its attributes."""

    def __init__(self, *sizes: int, colour: str = "red", **others: Any) -> None:
        super().__init__(*sizes, **others)


class Doubled(StackedLSTM):
    """A subclass that changes what it is given."""

    def __init__(self, input_size: int, channels: int, depth: int, **others: Any) -> None:
        super().__init__(input_size, 2 * channels, depth, **others)
        self.others = others


def weight_normed() -> TensorizedLSTM:
    return parametrizations.weight_norm(TensorizedLSTM(3, 4, 2), "weight_hidden")


def with_array() -> TensorizedLSTM:
    layer = TensorizedLSTM(3, 4, 2)
    layer.forget_bias = np.ones(2)  # type: ignore[assignment]
    return layer


def half_in_double() -> TensorizedLSTM:
    layer = TensorizedLSTM(3, 4, 2)
    layer.bias_hidden = nn.Parameter(layer.bias_hidden.double())
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        *[weight_normed(), WithMore(3, 4, 2), Doubled(3, 4, 2), with_array(), half_in_double()],
        TensorizedLSTM(3, 4, 2, device="meta"),
    ],
)
def test_a_layer_that_would_not_come_back_is_refused(layer: Any, file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(ValueError, match=f"a file cannot hold this {type(layer).__name__}: "):
        layer.to_file(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "head", [nn.Sequential(nn.Linear(4, 2)), parametrizations.weight_norm(nn.Linear(4, 2)), 5]
)
def test_a_head_that_would_not_come_back_is_refused(head: Any, file: Path) -> None:
    with pytest.raises(ValueError, match=r"head must be a plain torch\.nn\.Linear"):
        TensorizedLSTM(3, 4, 2).to_file(file, head)


@pytest.mark.parametrize("bias", [True, False])
def test_a_head_comes_back_bit_by_bit(bias: bool, file: Path) -> None:
    layer, head = TensorizedLSTM(3, 4, 2, forget_bias=np.float32(2)), nn.Linear(4, 3, bias=bias)
    layer.weight_input = nn.Parameter(head.weight.T.contiguous())
    head.weight = nn.Parameter(layer.weight_input.T)  # one memory for both
    layer.to_file(file, head)
    again = read_head(file)
    assert again.state_dict().keys() == head.state_dict().keys()
    assert torch.equal(again(torch.eye(4)), head(torch.eye(4)))
    assert TensorizedLSTM.from_file(file).forget_bias == 2


@pytest.mark.parametrize("about", ["[1]", "[" * 100_000, "{"])
def test_metadata_of_another_form(about: str, file: Path) -> None:
    changed(file, {}, about=about)
    with pytest.raises(ValueError, match="holds no layer of tlstm"):
        read_about(file)


@pytest.mark.timeout(20)
def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(ValueError, match="it is no regular file"):
            TensorizedLSTM.from_file(path)


def test_what_json_cannot_hold_is_refused_and_nothing_lost(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(ValueError, match="about must be what JSON can hold"):
        TensorizedLSTM(3, 4, 2).to_file(file, about={"weights": torch.zeros(2)})
    assert file.read_bytes() == before


def test_export_says_in_a_sentence_what_cannot_be(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, file, said in [
        (tmp_path, tmp_path / "file", f"{tmp_path} is no directory of a run"),
        (trained, tmp_path, f"{tmp_path}: cannot be written"),
        (
            trained,
            tmp_path / "no" / "file",
            f"there is no directory {tmp_path / 'no'} to write file",
        ),
    ]:
        line = refused(lambda run=run, file=file: export.main([str(run), str(file)]), capsys)
        assert line.startswith(f"error: {said}")
