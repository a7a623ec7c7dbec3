"""Depth, padding and tensor size: the arithmetic of kernel and tensor sizes.

P is the tensor size (locations along each location axis), K the kernel size, r the kernel's
radius, L the depth: the number of timesteps from an input to the first output that it reaches.
"""


def radius(kernel_size: int) -> int:
    """Return the locations that information moves towards the output in one timestep.

    r = (K − K mod 2) / 2 [paper].
    """
    return kernel_size // 2


def padding(kernel_size: int) -> tuple[int, int]:
    """Return the locations that the kernel reads before and after its own: (r, K − 1 − r).

    K = 3 reads p−1, p, p+1. K = 2 reads p−1, p: without p+1 there is no feedback.
    """
    before = radius(kernel_size)
    return before, kernel_size - 1 - before


def depth(tensor_size: int, kernel_size: int) -> int:
    """Return L = ⌈2P / (K − K mod 2)⌉ = ⌈P / r⌉ [paper].

    It is the smallest delay for which an output depends on x₁..x_t and not on x_{t+1}.
    """
    return -(-tensor_size // radius(kernel_size))


def tensor_size(depth: int, kernel_size: int) -> int:
    """Return the largest tensor size P that has this depth: P = L·r."""
    return depth * radius(kernel_size)
