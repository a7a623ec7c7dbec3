"""The computation, from tensors to tensors. START HERE: `reference.py` has the equations.

`reference` is one timestep as section 2 of the paper writes it; under autograd it is the oracle of
all the rest. `operator.sequence` is the fast path that the layers call: a whole sequence forward
and backward, in PyTorch operations on any device (`eager`) or in kernels for NVIDIA GPUs
(`triton`). `recording` replays sequences that come again, by one launch each.
"""
