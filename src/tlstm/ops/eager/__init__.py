"""The whole sequence by hand in PyTorch operations, on buffers written in place; any device."""

from tlstm.ops.eager.saved_tensors import History, empty_history
from tlstm.ops.eager.sequence import backward_sequence, forward_sequence

__all__ = ["History", "backward_sequence", "empty_history", "forward_sequence"]
