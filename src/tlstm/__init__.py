"""Tensorized LSTMs for sequence learning (He et al., NIPS 2017)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlstm.layers.tensorized import TensorizedLSTM, TensorizedRNN

__all__ = ["TensorizedLSTM", "TensorizedRNN"]


def __getattr__(name: str) -> Any:
    """The layers, when they are asked for: figures and tables need no torch."""
    if name in __all__:
        return getattr(import_module("tlstm.layers.tensorized"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
