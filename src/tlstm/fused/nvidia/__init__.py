"""The kernels for NVIDIA GPUs and the loops that launch them; imported only where they are used."""

from tlstm.fused.nvidia.history import History, empty_history
from tlstm.fused.nvidia.sequence_backward import backward
from tlstm.fused.nvidia.sequence_forward import forward

__all__ = ["History", "backward", "empty_history", "forward"]
