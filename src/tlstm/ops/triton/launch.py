"""Kernel launches without Triton's search for the compiled kernel."""

from typing import Any

import triton

# From this version on a compiled kernel takes its arguments and constants in their order
LAUNCHES_DIRECTLY = tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 6)


class Launch:
    """A kernel with its grid and its constants.

    The first call compiles it or finds it compiled, by its arguments' types and by the
    divisibility of numbers and addresses by 16. That search takes longer than most of the kernels,
    so later calls skip it. Their arguments must agree with the first ones in all of these.

    Args:
        kernel: of Triton; its constants come after its other arguments.
        grid: programs along each axis.
        options: the constants and Triton's compilation options, by name.
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
