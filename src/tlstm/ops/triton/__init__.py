"""The kernels for NVIDIA GPUs and the loops that launch them; imported only where they are used."""

from tlstm.ops.triton.backward import backward_sequence
from tlstm.ops.triton.forward import forward_sequence
from tlstm.ops.triton.saved_tensors import History, empty_history

__all__ = ["History", "backward_sequence", "empty_history", "forward_sequence"]
