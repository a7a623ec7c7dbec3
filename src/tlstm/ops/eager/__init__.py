"""The whole sequence in PyTorch operations, forward and backward by hand; any device."""

from tlstm.ops.eager.saved_tensors import SavedTensors, empty_saved_tensors
from tlstm.ops.eager.sequence import backward_sequence, forward_sequence

__all__ = ["SavedTensors", "backward_sequence", "empty_saved_tensors", "forward_sequence"]
