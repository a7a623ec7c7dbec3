"""How the commands refuse, one sentence on the error stream and exit code 2, and how they stop."""

import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn

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
        refuse(said)


def refuse(sentence: str) -> NoReturn:
    """End the process with a sentence and exit code 2."""
    complain(sentence)
    sys.exit(2)


def complain(sentence: str) -> None:
    """Say on the error stream, on one line, what went wrong."""
    print(f"error: {' '.join(sentence.split())}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def interruptions(advice: str) -> Iterator[None]:
    """End the process with exit code 130, as shells have it, where Ctrl-C was pressed.

    Lightning makes a SystemExit of Ctrl-C, after it has closed the loggers.

    Args:
        advice: how to go on.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        print(f"Interrupted; {advice}.", file=sys.stderr)
        sys.exit(130)
