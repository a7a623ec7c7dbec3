"""Downloads from a server on this machine: whole or not at all, once, and checked."""

import gzip
import hashlib
import http.server
import io
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tlstm.tasks import download, mnist, wikipedia
from tlstm.tasks.download import fetch, read_file

CONTENT = b"the cat sat on the mat" * 90


def zipped(*contents: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"text{number}", content)
    return packed.getvalue()


class Server:
    """Files by their names, each with the bytes that the connection loses at its end."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, int]] = {}
        self.downloads: list[str] = []
        self.url = ""


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            name = self.path.strip("/")
            self.send_response(200 if name in served.files else 404)
            self.send_header("Content-Length", str(len(served.files.get(name, (b"", 0))[0])))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            served.downloads.append(name := self.path.strip("/"))
            time.sleep(0.2)
            content, lost = served.files[name]
            self.wfile.write(content[: len(content) - lost])

        def log_message(self, *_: Any) -> None:
            pass

    download.reachable.cache_clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        served.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield served
        running.shutdown()
        thread.join()
    download.reachable.cache_clear()


def check(file: Path) -> None:
    if file.read_bytes() != CONTENT:
        raise ValueError("it has other content")


def files_below(directory: Path) -> set[str]:
    return {file.name for file in directory.rglob("*") if file.is_file()} - {".lock"}


def test_one_downloads_and_the_others_wait(server: Server, tmp_path: Path) -> None:
    server.files["text"] = CONTENT, 0
    path = tmp_path / "data" / "text"
    with ThreadPoolExecutor(4) as pool:
        urls = [f"{server.url}/text"]
        found = list(pool.map(lambda _: fetch(urls, path, check, "").read_bytes(), range(4)))
    assert found == [CONTENT] * 4
    assert len(server.downloads) <= 2  # torchvision first asks for redirections
    assert files_below(tmp_path) == {"text"}


@pytest.mark.parametrize(("content", "lost"), [(CONTENT, 100), (b"<html>", 0)])
def test_a_damaged_download_leaves_nothing(
    content: bytes, lost: int, server: Server, tmp_path: Path
) -> None:
    server.files = {"text": (content, lost), "mirror": (CONTENT, 0)}
    path = tmp_path / "text"
    with pytest.raises(ValueError, match=rf"text cannot be downloaded from {server.url}/text: "):
        fetch([f"{server.url}/text"], path, check, "")
    assert files_below(tmp_path) == set()
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]
    fetch([f"{server.url}/{name}" for name in ("text", "mirror")], path, check, "")
    assert path.read_bytes() == CONTENT


def test_without_a_server_nothing_is_made(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "data" / "text"
    with pytest.raises(ValueError, match=r"data/text is missing, .* no network .*; take another$"):
        fetch([f"{server.url}/nowhere"], path, check, "take another")
    assert list(tmp_path.iterdir()) == []
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert fetch([f"{server.url}/nowhere"], path, check, "") == path


@pytest.mark.parametrize(
    ("name", "content"),
    [("text", CONTENT), ("text.gz", gzip.compress(CONTENT)), ("text.zip", zipped(CONTENT))],
    ids=["plain", "gz", "zip"],
)
def test_files_are_read_plain_or_packed(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_file(tmp_path / name) == CONTENT
    if name != "text":
        for kept in (0, 10, len(content) - 20):
            (tmp_path / name).write_bytes(content[:kept])
            if kept or name == "text.zip":
                with pytest.raises(ValueError, match=f"{name} is damaged or not whole"):
                    read_file(tmp_path / name)


def test_an_archive_of_two_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "two.zip").write_bytes(zipped(b"one", b"two"))
    with pytest.raises(ValueError, match=r"two\.zip must hold one file, but holds 2"):
        read_file(tmp_path / "two.zip")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CONTENT[:-1], "is damaged or not enwik8: it has 1,979 bytes, not 1,980"),
        (CONTENT[:-1] + b"!", "is damaged or not enwik8: its SHA-256 is"),
        (CONTENT, None),
    ],
)
def test_enwik8_is_checked_by_its_hash(
    text: bytes,
    said: str | None,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.files["enwik8.zip"] = zipped(text), 0
    small = wikipedia.ENWIK8._replace(
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )
    monkeypatch.setattr(wikipedia, "URL", f"{server.url}/enwik8.zip")
    monkeypatch.setattr(wikipedia, "ENWIK8", small)
    monkeypatch.setattr(wikipedia, "PUBLISHED", {"wikipedia": small})
    if said is None:
        assert wikipedia.read_text("wikipedia", tmp_path, None) == CONTENT
    else:
        with pytest.raises(ValueError, match=said):
            wikipedia.read_text("wikipedia", tmp_path, None)
    assert files_below(tmp_path) == (set() if said else {"enwik8.zip"})


def test_mnist_is_checked_by_its_hashes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{name}.gz": gzip.compress(name.encode()) for name in mnist.FILES}
    server.files = {name: (content, 0) for name, content in files.items()}
    hashes = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(mnist.MNIST, "mirrors", [f"{server.url}/"])
    with pytest.raises(ValueError, match=r"train-images.*\.gz is not MNIST's: its MD5 is not f68b"):
        mnist.fetch_mnist(tmp_path)
    monkeypatch.setattr(mnist, "MD5", hashes)
    mnist.fetch_mnist(tmp_path)
    assert files_below(tmp_path) == set(files)
    for name, content in files.items():
        assert (tmp_path / "MNIST" / "raw" / name).read_bytes() == content
