"""Argument checks, atomic file writes and the errors of the commands."""

import contextlib
import operator
import os
import stat
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn


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

    A link stays and its file is replaced; the file keeps its mode and, where possible, its owner.
    What is no regular file, such as /dev/null or a pipe, is written to as it is.

    Args:
        path: the file; a missing directory is created.
        content: the bytes of the new file.

    Raises:
        OSError: the file cannot be written; the message names the path.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            _replace(resolved(path), content)
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            if path.exists():
                old = path.stat()
                with contextlib.suppress(OSError):
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def resolved(path: Path) -> Path:
    """Return the file that a path leads to, through links; it need not exist."""
    return Path(os.path.realpath(path))


def read_regular(path: Path, limit: int) -> bytes:
    """Return the content of a regular file; a pipe or a device is never waited for.

    Raises:
        OSError: it cannot be read; the message names the file.
        ValueError: it is no regular file or has more than `limit` bytes.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{printable(path)} has more than {limit:,} bytes, which are too many")
    return content


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; as `read_regular`."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{printable(path)} is no regular file")
    return path.open("rb")


def printable(text: object) -> str:
    """Return a text in which newlines, escape sequences and the like are written out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def sentence(error: OSError | ValueError) -> str:
    """Describe an error and its file in one sentence, for a person at a terminal."""
    if isinstance(error, OSError) and error.strerror:
        place = f"{printable(error.filename)}: " if error.filename else ""
        return place + error.strerror
    return printable(" ".join(str(error).split()))


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
    print(f"error: {printable(' '.join(sentence.split()))}", file=sys.stderr, flush=True)


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
