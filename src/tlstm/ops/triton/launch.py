"""Launches of one kernel after the other, at what the launch itself costs."""

from typing import Any

import triton

# From this version on a compiled kernel takes its arguments, constants among them, as they come
LAUNCHES_DIRECTLY = tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 6)


class Launch:
    """A kernel with its grid and its constants.

    The first call compiles it, or finds it compiled, by its arguments: their types, and whether
    numbers and addresses are divisible by 16. That search takes longer than most of the kernels,
    so later calls go without it. Their arguments must be like the first ones in all that.

    Args:
        kernel: of Triton, whose constants come after its other arguments.
        grid: programs along each axis.
        options: the constants, and how Triton is to compile them, by name.
    """

    def __init__(self, kernel: Any, grid: tuple[int, ...], **options: Any) -> None:
        self._kernel, self._options = kernel, options
        self._grid = (*grid, 1, 1)[:3]
        self._constants = [options[name] for name in kernel.arg_names if name in options]
        self._compiled: Any = None

    def __call__(self, *arguments: Any) -> None:
        """Launch it on the current device and stream."""
        if self._compiled is None:
            compiled = self._kernel[self._grid](*arguments, **self._options)
            self._compiled = compiled if LAUNCHES_DIRECTLY else None
        else:
            self._compiled[self._grid](*arguments, *self._constants)
