"""Imported first by the server that starts processes: Linux ends it when the sweep is gone.

Otherwise it would notice only after all of its other imports.
"""

import contextlib
import ctypes
import signal

PR_SET_PDEATHSIG = 1  # of prctl(2)

with contextlib.suppress(AttributeError, OSError):  # another system
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
