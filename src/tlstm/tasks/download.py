"""Files of data: downloaded once and whole, checked, and read plain or packed."""

import gzip
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from filelock import FileLock
from torchvision.datasets.utils import download_url

TIMEOUT = 5.0  # seconds until a server that does not respond counts as unreachable


def fetch(urls: Sequence[str], path: Path, check: Callable[[Path], None], advice: str) -> Path:
    """Download a file that is missing, whole or not at all.

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
    reachable_urls = [] if path.is_file() else [url for url in urls if reachable(url)]
    if not path.is_file() and not reachable_urls:
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
    """Read a file, unpacked if its name ends in .gz or .zip.

    Raises:
        ValueError: the file is damaged, or a .zip of several files; the message names it.
        OSError: the file cannot be read.
    """
    try:
        return _unpack(path)
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is damaged or not whole: {error}") from error


def _unpack(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix != ".zip":
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(names) != 1:
            raise ValueError(f"{path} must hold one file, but holds {len(names)}")
        return archive.read(names[0])


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
