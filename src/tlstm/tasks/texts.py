"""The texts that characters are predicted of: enwik8, a file, or what every Python carries.

A text is bytes, and its characters are these. What stands in for enwik8 has another name in every
output: `wikipedia_sample` is a file that was given by its path, `python_topics` is the help on
Python's own keywords and types, which `pydoc_data.topics` carries.
"""

import gzip
import hashlib
import tempfile
import zipfile
import zlib
from functools import cache
from http.client import HTTPException
from importlib import import_module
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.request import Request, urlopen

from filelock import FileLock
from torchvision.datasets.utils import download_url

Source = Literal["wikipedia", "wikipedia_sample", "python_topics"]

SOURCES: tuple[Source, ...] = ("wikipedia", "wikipedia_sample", "python_topics")
NAMES = ("enwik8", "enwik8.zip", "enwik8.gz")  # of a file in the directory enwik8
NETWORK_SECONDS = 5.0  # until a server that does not answer counts as none


class Published(NamedTuple):
    """A text as others publish it.

    Attributes:
        url: of a zip archive with the text as its only file.
        size: of the text in bytes.
        symbols: how many different bytes it has.
        sha256: of the text, in hexadecimal digits.
    """

    url: str
    size: int
    symbols: int
    sha256: str


ENWIK8 = Published(
    url="http://mattmahoney.net/dc/enwik8.zip",
    size=10**8,
    symbols=205,
    sha256="2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
)


def available_source(data_dir: Path, path: Path | None, named: bool) -> Source:
    """Which text there is to train on.

    Args:
        data_dir: holds, or would hold, enwik8 in the directory enwik8.
        path: of a file, where somebody asked for it.
        named: whether somebody asked for either; then nothing stands in for it.

    Raises:
        ValueError: what was asked for is not there or damaged.
        OSError: it cannot be read.
    """
    if path is not None:
        return "wikipedia" if is_enwik8(read_file(path)) else "wikipedia_sample"
    if named and not data_dir.is_dir():
        raise ValueError(f"task.data_dir={data_dir}: there is no such directory")
    if existing(data_dir) or network():
        return "wikipedia"
    if named:
        raise ValueError(_not_to_be_had(data_dir))
    return "python_topics"


def read_text(source: Source, data_dir: Path, path: Path | None) -> bytes:
    """A text, downloaded if need be.

    Raises:
        ValueError: it is not there, damaged or not what `source` says; the message says why.
        OSError: it cannot be read or written.
    """
    if source == "python_topics":
        if path is not None:
            raise ValueError(f"task.path={path} is no {source}; leave one of both out")
        return python_topics()
    if path is None:
        if source == "wikipedia_sample":
            raise ValueError("task.source=wikipedia_sample needs task.path, the file to read")
        path = existing(data_dir) or download(data_dir)
    text = read_file(path)
    if source == "wikipedia" and not is_enwik8(text):
        raise ValueError(f"{path} is damaged or not enwik8: {_difference(text)}")
    return text


def python_topics() -> bytes:
    """The text that every Python carries; it differs a little between its versions."""
    topics: dict[str, str] = import_module("pydoc_data.topics").topics
    return "\n".join(topics[name] for name in sorted(topics)).encode()


def read_file(path: Path) -> bytes:
    """A file's bytes, unpacked where its name ends in .gz or .zip.

    Raises:
        ValueError: there is no such file, it is empty, damaged, or an archive of several files.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file to train on")
    try:
        text = _unpacked(path)
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is damaged or not whole: {error}") from error
    if not text:
        raise ValueError(f"{path} is empty")
    return text


def fingerprint(text: bytes) -> str:
    """What a text is known by: the beginning of its SHA-256."""
    return _short(hashlib.sha256(text).hexdigest())


def fingerprint_of(source: Source, data_dir: Path, path: Path | None) -> str:
    """What the text of a source is known by; enwik8 is not read for it.

    Raises:
        ValueError, OSError: as `read_text`.
    """
    if source == "wikipedia":
        return _short(ENWIK8.sha256)
    return fingerprint(read_text(source, data_dir, path))


def is_enwik8(text: bytes) -> bool:
    """Whether a text is the whole of enwik8, unchanged."""
    return len(text) == ENWIK8.size and hashlib.sha256(text).hexdigest() == ENWIK8.sha256


def existing(data_dir: Path) -> Path | None:
    """The file of enwik8, if there is one."""
    files = (data_dir / "enwik8" / name for name in NAMES)
    return next((file for file in files if file.is_file()), None)


def download(data_dir: Path) -> Path:
    """Download enwik8, whole or not at all; one process does it and the others wait.

    Raises:
        ValueError: it cannot be downloaded, or what came is not enwik8.
        OSError: the directory cannot be written.
    """
    if not network():
        raise ValueError(_not_to_be_had(data_dir))
    folder = data_dir / "enwik8"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        found = existing(data_dir)
        if found is not None:
            return found
        with tempfile.TemporaryDirectory(dir=data_dir, prefix=".download-") as beside:
            file = _fetched(Path(beside))
            return file.replace(folder / file.name)


@cache
def network() -> bool:
    """Whether the server that enwik8 is downloaded from answers."""
    try:
        with urlopen(Request(ENWIK8.url, method="HEAD"), timeout=NETWORK_SECONDS):
            return True
    except (OSError, HTTPException):
        return False


def _fetched(directory: Path) -> Path:
    """The archive of enwik8, downloaded to a directory and checked."""
    file = directory / "enwik8.zip"
    try:
        download_url(ENWIK8.url, str(directory), file.name)
        text = read_file(file)
    except (OSError, HTTPException, RecursionError, ValueError) as error:
        raise ValueError(f"enwik8 cannot be downloaded from {ENWIK8.url}: {error}") from error
    if not is_enwik8(text):
        raise ValueError(f"what {ENWIK8.url} gave is not enwik8: {_difference(text)}")
    return file


def _unpacked(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix != ".zip":
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(names) != 1:
            raise ValueError(f"{path} must hold one file, the text, and holds {len(names)}")
        return archive.read(names[0])


def _short(sha256: str) -> str:
    return f"sha256-{sha256[:16]}"


def _difference(text: bytes) -> str:
    if len(text) != ENWIK8.size:
        return f"it has {len(text):,} bytes, not {ENWIK8.size:,}"
    return f"its SHA-256 is {hashlib.sha256(text).hexdigest()}, not {ENWIK8.sha256}"


def _not_to_be_had(data_dir: Path) -> str:
    return (
        f"{data_dir / 'enwik8'} has no {' or '.join(NAMES)}, and there is no network to download "
        "it; task.path takes another text, task.source=python_topics the one that Python carries"
    )
