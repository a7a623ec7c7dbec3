"""Argument checks, atomic file writes and the errors of the commands."""

import contextlib
import math
import numbers
import operator
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn


def at_least(name: str, value: int, minimum: int) -> int:
    """Return the value where it is an integer of at least the minimum.

    Raises:
        ValueError: otherwise; the message names the argument.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}")
    return number


def share(name: str, value: float) -> float:
    """Return the value where it is a number from 0 to 1.

    Raises:
        ValueError: otherwise; the message names the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")
    return value


def finite(name: str, value: object) -> float:
    """Return the value as a float where it is a finite number.

    Raises:
        ValueError: otherwise; the message names the argument.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def true_or_false(name: str, value: bool) -> bool:
    """Return the value where it is True or False.

    Raises:
        ValueError: otherwise; the message names the argument.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return value


def replace_file(path: Path, content: bytes) -> None:
    """Write a whole file, or leave the old one untouched.

    Args:
        path: the file; a missing directory is created.
        content: the bytes of the new file.

    Raises:
        OSError: the file cannot be written; the message names the path.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sentence(error: OSError | ValueError) -> str:
    """Describe an error and its file in one sentence, for a person at a terminal."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


@contextlib.contextmanager
def refusals(*errors: type[Exception]) -> Iterator[None]:
    """End the process with one sentence on the expected errors.

    Args:
        errors: kinds of error whose message is written for the user. Any other error is a bug and
            keeps its traceback.
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
    """Print an error on one line of the error stream."""
    print(f"error: {' '.join(sentence.split())}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def interruptions(advice: str) -> Iterator[None]:
    """End the process with exit code 130, the shell's convention, after Ctrl-C.

    Lightning closes the loggers on Ctrl-C and raises SystemExit.

    Args:
        advice: how to continue.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        print(f"Interrupted; {advice}.", file=sys.stderr)
        sys.exit(130)
