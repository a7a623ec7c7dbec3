"""How the commands refuse: one sentence on the error stream and exit code 2."""

import contextlib
import sys
from collections.abc import Iterator

from tlstm.record import sentence


@contextlib.contextmanager
def refusals(*errors: type[Exception]) -> Iterator[None]:
    """End the process with a clear sentence where something cannot be done.

    Args:
        errors: kinds of error whose message says what cannot be and why; any other is a mistake
            of ours and keeps its traceback.
    """
    try:
        yield
    except errors as error:
        said = sentence(error) if isinstance(error, OSError | ValueError) else str(error)
        print(f"error: {said}", file=sys.stderr)
        sys.exit(2)
