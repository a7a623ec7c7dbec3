"""The whole sequence in kernels for NVIDIA GPUs; imported only if they are used."""

from tlstm.ops.triton.backward import backward_sequence
from tlstm.ops.triton.forward import forward_sequence
from tlstm.ops.triton.layout import SavedTensors, empty_saved_tensors

__all__ = ["SavedTensors", "backward_sequence", "empty_saved_tensors", "forward_sequence"]
