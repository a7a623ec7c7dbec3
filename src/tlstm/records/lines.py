"""Stores of records, one JSON a line, to which lines are only ever added."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from pydantic import BaseModel

from tlstm.utils import printable, read_regular, replace_file, resolved

LARGEST = 2**30  # bytes of a store
LOCK_SECONDS = 120.0
Entry = TypeVar("Entry", bound=BaseModel)
Parse = Callable[[bytes, str], Entry]  # a line and its place, "line 3 of results/.../records.jsonl"


def read_lines(path: Path, parse: Parse[Entry]) -> list[Entry]:
    """Return what the lines of a file hold.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is not valid, or the file is none to read; the message names it.
    """
    return parse_lines(read_regular(path, LARGEST), printable(path), parse)


def parse_lines(content: bytes, name: str, parse: Parse[Entry]) -> list[Entry]:
    """Return what the lines of a file's content hold; as `read_lines`."""
    numbered = enumerate(content.split(b"\n"), 1)
    return [parse(line, f"line {number} of {name}") for number, line in numbered if line.strip()]


def read_store(path: Path, parse: Parse[Entry]) -> list[Entry]:
    """Return what a store holds, nothing where there is none; as `read_lines`."""
    return read_lines(path, parse) if path.exists() else []


def add_lines(path: Path, parse: Parse[Entry], new: Callable[[list[Entry]], list[Entry]]) -> int:
    """Add lines to a store. The lines that were there keep every byte.

    Safe with many writers: one at a time holds the store's lock. A failure leaves the store as
    it was.

    Args:
        path: the store; a link to it is followed.
        parse: makes an entry of a line that is there.
        new: returns the entries to add to those that are there.

    Returns:
        The number of entries that were added.

    Raises:
        OSError: the store could not be locked or written.
        ValueError: a line of the store is not valid; nothing is written.
    """
    file = resolved(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f"{file.name}.lock"), timeout=LOCK_SECONDS):
        added = new(read_store(path, parse))
        if added:
            old = file.read_bytes() if file.exists() else b""
            ends = b"" if old.endswith(b"\n") or not old else b"\n"
            lines = "".join(f"{entry.model_dump_json()}\n" for entry in added)
            replace_file(path, old + ends + lines.encode())
    return len(added)
