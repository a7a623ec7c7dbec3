"""Files of data: downloaded once and whole, checked, and read plain or packed."""

import bz2
import gzip
import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.request import Request, urlopen

from filelock import FileLock
from torchvision.datasets.utils import download_url

from tlstm.utils import open_regular

TIMEOUT = 5.0  # seconds until a server that does not respond counts as unreachable
LARGEST = 2**31  # bytes of a file of data, unpacked
ENCRYPTED = 0x1  # among the flags of a zip's member
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, UnicodeDecodeError)
BEGINNINGS: dict[str, tuple[bytes, ...]] = {  # of packed files
    "gzip": (b"\x1f\x8b",),
    "bzip2": tuple(
        b"BZh%d%b" % (level, block)
        for level in range(1, 10)
        for block in (b"1AY&SY", b"\x17rE8P\x90")
    ),
    "xz": (b"\xfd7zXZ\0",),
    "lzma": (b"]\0\0",),  # without a checksum
    "zip": (b"PK\3\4", b"PK\5\6", b"PK\7\x08"),
    "zstandard": (b"\x28\xb5\x2f\xfd",),
    "7-Zip": (b"7z\xbc\xaf\x27\x1c",),
    "RAR": (b"Rar!\x1a\7",),
    "lz4": (b"\x04\x22\x4d\x18",),
    "compress": (b"\x1f\x9d", b"\x1f\xa0"),
}
UNPACK: dict[str, Callable[[BinaryIO], Any]] = {
    "gzip": gzip.open,
    "bzip2": bz2.open,
    "xz": lzma.open,
}
PACKED_NAMES = (  # of files that are never plain
    *(".gz", ".tgz", ".bz2", ".xz", ".lzma", ".zip"),
    *(".tar", ".zst", ".7z", ".rar", ".lz4", ".br"),
)


def fetch(urls: Sequence[str], path: Path, check: Callable[[Path], None], advice: str) -> Path:
    """Return a file; download one that is missing, whole or not at all.

    One process downloads the file; others that need it wait.

    Args:
        urls: servers that have the file, in the order of trial.
        path: the file; a missing directory is created.
        check: raises a ValueError if the downloaded file has other content than expected.
        advice: alternative to the download, for the error message.

    Returns:
        The path.

    Raises:
        ValueError: no server is reachable, or none has the file with the expected content.
        OSError: the directory cannot be written.
    """
    if path.is_file():
        return path
    reachable_urls = [url for url in urls if reachable(url)]
    if not reachable_urls:
        raise ValueError(f"{path} is missing, and there is no network to download it; {advice}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / ".lock"):
        if not path.is_file():
            _download(reachable_urls, path, check)
    return path


@cache
def reachable(url: str) -> bool:
    """Return True if a server offers the file at a URL."""
    try:
        with urlopen(Request(url, method="HEAD"), timeout=TIMEOUT):
            return True
    except (OSError, HTTPException):
        return False


def read_file(path: Path) -> bytes:
    """Read a file, unpacked where its content is gzip, bzip2, xz or a zip of one file.

    Raises:
        ValueError: the file is damaged, too large, or packed in a way that cannot be unpacked
            here; the message names it.
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        kind = _packing(file.read(tarfile.BLOCKSIZE))
        file.seek(0)
        try:
            content = _unpack(path, kind, file)
        except DAMAGE as error:
            raise ValueError(f"{path} is damaged or not whole: {error}") from error
        except NotImplementedError as error:
            raise ValueError(f"{path} cannot be unpacked here: {error}") from error
    inner = kind and _packing(content)
    if inner:
        raise ValueError(f"{path} holds a {inner} file; unpack it to plain text first")
    return content


def _packing(content: bytes) -> str:
    """Return the name of the format that a file's first bytes are of, "" for plain data."""
    for kind, beginnings in BEGINNINGS.items():
        if content.startswith(beginnings):
            return kind
    try:
        tarfile.TarInfo.frombuf(content[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return ""
    return "tar"


def _unpack(path: Path, kind: str, file: BinaryIO) -> bytes:
    if not kind and path.suffix.lower() in PACKED_NAMES:
        raise ValueError(f"{path} is damaged or not what its name says: it is not packed")
    if not kind:
        return _all_of(file, path)
    if kind == "zip":
        return _unzip(path, file)
    if kind not in UNPACK:
        raise ValueError(f"{path} is a {kind} file; unpack it to plain text first")
    with UNPACK[kind](file) as unpacked:
        return _all_of(unpacked, path)


def _unzip(path: Path, file: BinaryIO) -> bytes:
    with zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1:
            raise ValueError(f"{path} must hold one file, but holds {len(members)}")
        if members[0].flag_bits & ENCRYPTED:
            raise ValueError(f"{path} is encrypted; unpack it to plain text first")
        with archive.open(members[0]) as unpacked:
            return _all_of(unpacked, path)


def _all_of(file: IO[bytes], path: Path) -> bytes:
    content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"{path} holds more than {LARGEST:,} bytes, which are too many")
    return content


def _download(urls: Sequence[str], path: Path, check: Callable[[Path], None]) -> None:
    problems = []
    # A download that is interrupted leaves nothing at the file's own path
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as directory:
        file = Path(directory) / path.name
        for url in urls:
            try:
                download_url(url, directory, file.name)
                check(file)
            except (OSError, HTTPException, RecursionError, ValueError) as error:
                problems.append(f"{path.name} cannot be downloaded from {url}: {error}")
                file.unlink(missing_ok=True)
            else:
                file.replace(path)
                return
    raise ValueError("; ".join(problems))
