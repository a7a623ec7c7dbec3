"""The fast path: a whole sequence's forward and backward by hand, on buffers written in place.

`sequence` is the operator that the layers call; `pytorch` computes it in PyTorch operations on
any device, `triton` with kernels for NVIDIA GPUs. `cell.py` under autograd is their oracle.
"""
