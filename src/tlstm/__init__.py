"""Tensorized LSTMs for sequence learning (He et al., NIPS 2017)."""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tlstm.utils import refuse, start_command

if TYPE_CHECKING:
    from tlstm.layers.tensorized import TensorizedLSTM, TensorizedRNN

__all__ = ["TensorizedLSTM", "TensorizedRNN"]

# A notebook's backend for pictures ends a command that it starts, at the command's first import
if sys.argv[:1] == ["-m"]:
    os.environ["MPLBACKEND"] = "agg"

# `python -m tlstm.train` imports the package before the command, with "-m" in place of its name
if sys.argv[:1] == ["-m"]:
    start_command()
    if find_spec("lightning") is None:
        refuse("the commands need the experiments' packages: pip install 'tlstm[experiments]'")


def __getattr__(name: str) -> Any:
    """Import the layers on first use: figures and tables need no torch."""
    if name in __all__:
        return getattr(import_module("tlstm.layers.tensorized"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
