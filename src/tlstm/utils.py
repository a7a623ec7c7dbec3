"""Argument checks, atomic file writes, the errors of the commands and how they end."""

import argparse
import contextlib
import io
import math
import numbers
import operator
import os
import signal
import stat
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

WAIT_POLICY = "OMP_WAIT_POLICY"
ESTIMATE_FACTOR = 1.5  # an estimate may be off by it either way


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


def project_name(name: str, text: str) -> str:
    """Return the text where W&B takes it for a project, a user or a team.

    Raises:
        ValueError: otherwise; the message names the argument.
    """
    if not text.strip() or len(text) > 128 or not text.isprintable() or {*text} & {*"/\\#?%:"}:
        raise ValueError(
            f"{name} must be at most 128 characters, none of them /, \\, #, ?, % or :, got {text!r}"
        )
    return text


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


def duration(seconds: float) -> str:
    """Write a duration for people: 40 s, 9 min, 3.5 h, 2.1 days."""
    for limit, unit, size in ((90, "s", 1), (90 * 60, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.{int(size == 3600)}f} {unit}"
    return f"{seconds / 86400:.1f} days"


def time_range(seconds: float) -> str:
    """Write an estimate of a duration as a range that holds: 6 min to 14 min."""
    return f"{duration(seconds / ESTIMATE_FACTOR)} to {duration(seconds * ESTIMATE_FACTOR)}"


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


def given_path(text: str) -> Path:
    """Return a path as people write it: ~ is the home directory.

    Raises:
        ArgumentTypeError: it is empty, or no system could have it.
    """
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"must be a path, got {text!r}")
    try:
        return Path(text).expanduser() if text[0] == "~" else Path(text)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text}: there is no such user") from error


class CommandParser(argparse.ArgumentParser):
    """A parser of options that refuses wrong ones in one sentence, an empty path among them."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.register("type", Path, given_path)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse what the parser knows; argparse takes the value of `--option=--` for none."""
        found, rest = super().parse_known_args(args, namespace)
        for action in self._actions:
            if action.nargs is None and getattr(found, action.dest, None) == []:
                self.error(f"argument {'/'.join(action.option_strings)}: must have a value, not --")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """End the process with exit code 2; --help shows the usage."""
        refuse(f"{message}; --help lists the options")


def check_directory(file: Path) -> None:
    """Refuse a file to write where there is no directory for it.

    Raises:
        ValueError: the directory is missing.
    """
    if not file.parent.is_dir():
        raise ValueError(f"there is no directory {file.parent} to write {file.name} to")


INTERRUPTED, CUT_OFF, TERMINATED = 130, 141, 143  # exit codes, by the shell's convention


@contextlib.contextmanager
def interruptions(advice: str) -> Iterator[None]:
    """End the process with a sentence at Ctrl-C and at SIGTERM, with the shell's exit codes.

    Lightning closes the loggers and raises SystemExit: with code 1 at Ctrl-C, with none at SIGTERM.

    Args:
        advice: how to continue.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as end:
        terminated = isinstance(end, SystemExit) and end.code in (None, TERMINATED)
        print(f"{'Ended' if terminated else 'Interrupted'}; {advice}.", file=sys.stderr)
        sys.exit(TERMINATED if terminated else INTERRUPTED)


def start_command() -> None:
    """Prepare the process of a command, before its imports.

    OpenMP's threads sleep while they wait for each other: spinning ones take turns with those that
    they wait for where another process has a core, which makes a run ten times slower. A sign that
    the encoding of the output lacks is replaced. Ctrl-C ends the process at once, since
    there is nothing to clean up yet, and an interrupted import may fail in any way.
    """
    os.environ.setdefault(WAIT_POLICY, "passive")  # which OpenMP reads once, as torch is imported
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, _leave)


def run_main(main: Callable[[], int | None]) -> int:
    """Run a command and return its exit code.

    Ctrl-C is KeyboardInterrupt and SIGTERM is SystemExit meanwhile. An output that nobody reads any
    more, as in `.. | head`, ends the command in silence.
    """
    heeds = signal.getsignal(signal.SIGINT) is _leave
    if heeds:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        complain("interrupted")
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = CUT_OFF
    finally:
        if heeds:
            signal.signal(signal.SIGINT, _leave)  # while the interpreter ends
    return code or 0


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """End the process at once at Ctrl-C, as while a command imports what it needs."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    yield
    signal.signal(signal.SIGINT, handler)


def _leave(*_: object) -> None:
    os.write(2, b"error: interrupted\n")
    os._exit(INTERRUPTED)


def _terminate(*_: object) -> None:
    sys.exit(TERMINATED)
