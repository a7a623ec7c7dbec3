"""Helpers of every folder: checks of arguments, atomic files, and how the commands end."""

import contextlib
import operator
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn


def at_least(name: str, value: int, minimum: int) -> int:
    """The value, where it is an integer not under the minimum.

    Raises:
        ValueError: otherwise; it names the argument.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}")
    return number


def share(name: str, value: float) -> float:
    """The value, where it is a number from 0 to 1.

    Raises:
        ValueError: otherwise; it names the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")
    return value


def true_or_false(name: str, value: bool) -> bool:
    """The value, where it is True or False.

    Raises:
        ValueError: otherwise; it names the argument.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return value


def replace_file(path: Path, content: bytes) -> None:
    """Writes a whole file or leaves the old one untouched, whatever happens.

    Args:
        path: the file; its directory is made if need be.
        content: everything the file holds afterwards.

    Raises:
        OSError: it could not be written; the message names the path.
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
    """What went wrong and with which file, for a person at a terminal."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


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
