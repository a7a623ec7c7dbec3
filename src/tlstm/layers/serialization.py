"""Layers in files: safetensors of the weights and the constructor's arguments; no code.

The tensors are "layer.<name>" by the names of the layer's `state_dict` and, if there is a head,
"head.weight" [output_size, M] and, with a bias, "head.bias" [output_size]. The metadata are texts:

    format      "tlstm 1"
    layer       the class, "TensorizedLSTM"
    arguments   of its constructor, as JSON
    about       further facts, as JSON: `tlstm.export` writes the origin of the weights
"""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from tlstm.utils import (
    replace_file,
)

FORMAT = "tlstm 1"
OF_THE_MACHINE = ("implementation", "device", "dtype")  # arguments that a file does not fix


class LayerFile(NamedTuple):
    """The content of a file.

    Attributes:
        layer: the layer's class.
        arguments: of its constructor.
        weights: its `state_dict`.
        head: weight and bias of the linear head; empty without one.
        about: further facts.
    """

    layer: str
    arguments: dict[str, Any]
    weights: dict[str, Tensor]
    head: dict[str, Tensor]
    about: dict[str, Any]

    @property
    def dtype(self) -> torch.dtype | None:
        """The type of the weights, None if there are none."""
        return next((tensor.dtype for tensor in self.weights.values()), None)


def write_layer(
    path: Path, layer: nn.Module, head: nn.Linear | None, about: Mapping[str, Any] | None
) -> None:
    """Write a layer to a file, completely or not at all.

    Raises:
        OSError: it cannot be written.
        ValueError: the file could not be read again; the message says why.
    """
    arguments = _checked_arguments(layer)
    if head is not None and not (
        isinstance(head, nn.Linear) and head.state_dict().keys() <= {"weight", "bias"}
    ):
        raise ValueError(f"head must be a plain torch.nn.Linear, got {head!r}")
    modules = {"layer": layer} | ({} if head is None else {"head": head})
    tensors = {
        f"{prefix}.{name}": tensor.detach().to("cpu", copy=True).contiguous()
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    metadata = {
        "format": FORMAT,
        "layer": type(layer).__name__,
        "arguments": json.dumps(arguments),
        "about": _described(about),
    }
    replace_file(path, safetensors.torch.save(tensors, metadata))


def _checked_arguments(layer: nn.Module) -> dict[str, Any]:
    """Return the arguments of a layer's constructor, from which JSON makes the same layer again.

    Raises:
        ValueError: it does not, or the layer holds no numbers.
    """
    name = type(layer).__name__
    own = {name: (value.shape, value.dtype) for name, value in layer.state_dict().items()}
    try:
        arguments = constructor_arguments(layer)
        text = json.dumps(arguments, allow_nan=False)
        dtype = next(dtype for _, dtype in own.values())
        again = type(layer)(**json.loads(text), device="meta", dtype=dtype).state_dict()
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"a file cannot hold this {name}: {error}") from error
    if own != {name: (value.shape, value.dtype) for name, value in again.items()}:
        raise ValueError(
            f"a file cannot hold this {name}: its weights are not those that its arguments make; "
            "remove parametrizations such as weight_norm first"
        )
    if any(value.is_meta for value in layer.state_dict().values()):
        raise ValueError(
            f"a file cannot hold this {name}: it is on the device meta, without numbers"
        )
    return arguments


def _described(about: Mapping[str, Any] | None) -> str:
    """Return the further facts as JSON.

    Raises:
        ValueError: JSON cannot hold them.
    """
    try:
        return json.dumps(dict(about or {}), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"about must be what JSON can hold: {error}") from error


def constructor_arguments(layer: nn.Module) -> dict[str, Any]:
    """Return the arguments of a layer's constructor, except those that depend on the machine."""
    names = inspect.signature(type(layer)).parameters
    return {name: getattr(layer, name) for name in names if name not in OF_THE_MACHINE}


def read_layer(path: Path) -> LayerFile:
    """Read a file; nothing in it is executed.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no layer, or it is damaged.
    """
    path.stat()  # if it is not there, raises the system's own OSError
    if not path.is_file():
        raise ValueError(f"{path} holds no layer of tlstm: it is no regular file")
    with path.open("rb"):
        pass  # if it cannot be read, raises the system's own OSError
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        arguments, about = (json.loads(metadata[key]) for key in ("arguments", "about"))
        objects = isinstance(arguments, dict) and isinstance(about, dict)
        if metadata["format"] != FORMAT or not objects:
            raise ValueError(metadata["format"])
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} holds no layer of tlstm, or it is damaged") from error
    weights, head = (_below(prefix, tensors) for prefix in ("layer.", "head."))
    return LayerFile(metadata["layer"], arguments, weights, head, about)


def read_head(path: str | Path) -> nn.Linear:
    """Read the linear head of a layer: logits [.., output_size] of the layer's output [.., M].

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no head, or it is damaged.
    """
    tensors = read_layer(Path(path)).head
    if "weight" not in tensors:
        raise ValueError(f"{path} holds a layer without a head")
    weight = tensors["weight"]
    try:
        outputs, channels = weight.shape
        head = nn.Linear(channels, outputs, "bias" in tensors, dtype=weight.dtype)
        head.load_state_dict(tensors)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path} does not make a head: {error}") from error
    return head


def read_about(path: str | Path) -> dict[str, Any]:
    """Read the further facts of a layer; `tlstm.export` writes run, task and test metrics.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no layer, or it is damaged.
    """
    return read_layer(Path(path)).about


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
