"""Downloads from a server on this machine: whole or not at all, once, and checked."""

import bz2
import gzip
import hashlib
import http.server
import io
import lzma
import os
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


PACKED = {
    "gz": gzip.compress(CONTENT),
    "bz2": bz2.compress(CONTENT),
    "xz": lzma.compress(CONTENT),
    "zip": zipped(CONTENT),
}


@pytest.mark.parametrize("name", ["text", "text.txt", "TEXT.GZ", "text.zip"])
@pytest.mark.parametrize("kind", PACKED)
def test_packed_files_are_known_by_their_content(kind: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(PACKED[kind])
    assert read_file(tmp_path / name) == CONTENT


def test_plain_files_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "text"
    for content in (b"", b"a", b"BZh9 is how bzip2 begins", bytes(600), CONTENT):
        path.write_bytes(content)
        assert read_file(path) == content


@settings(max_examples=200)
@given(kind=st.sampled_from(sorted(PACKED)), data=st.data())
def test_a_damaged_file_is_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    content = bytearray(PACKED[kind])
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    length = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path = tmp_path_factory.mktemp("damaged") / f"text.{kind}"
    path.write_bytes(content[:length])
    try:
        found = read_file(path)
    except ValueError as error:
        found = str(error).encode()
    assert found == CONTENT or str(path).encode() in found  # equal where a date is damaged, say


def tarred(content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("text")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def patched(content: bytes, offset: int, value: int) -> bytes:
    """A zip of one file with a field of both of its headers changed: flags at 6, method at 8."""
    changed = bytearray(content)
    for place in (offset, content.index(b"PK\1\2") + offset + 2):
        changed[place : place + 2] = value.to_bytes(2, "little")
    return bytes(changed)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (zipped(b"one", b"two"), "must hold one file, but holds 2"),
        (zipped(), "must hold one file, but holds 0"),
        (zipped(zipped(CONTENT)), "holds a zip file; unpack it to plain text first"),
        (gzip.compress(gzip.compress(CONTENT)), "holds a gzip file"),
        (tarred(CONTENT), "is a tar file; unpack it to plain text first"),
        (gzip.compress(tarred(CONTENT)), "holds a tar file"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(50), "is a 7-Zip file"),
        (b"\x28\xb5\x2f\xfd" + bytes(50), "is a zstandard file"),
        (lzma.compress(CONTENT, lzma.FORMAT_ALONE), "is a lzma file; unpack it"),
        (patched(zipped(CONTENT), 6, 1), "is encrypted; unpack it to plain text first"),
        (patched(zipped(CONTENT), 8, 97), "cannot be unpacked here: That compression method"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_unpacked_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path} {said}") as caught:
        read_file(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_only_its_name_calls_packed_is_refused(tmp_path: Path) -> None:
    for name in ("text.gz", "text.Zip", "text.tar", "text.br"):
        (tmp_path / name).write_bytes(CONTENT)
        with pytest.raises(ValueError, match=f"{name} is damaged or not what its name says"):
            read_file(tmp_path / name)


@pytest.mark.parametrize("kind", [*PACKED, "plain"])
def test_what_is_too_large_is_not_read_whole(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "LARGEST", 1000)
    (tmp_path / "text").write_bytes(PACKED.get(kind, CONTENT))
    with pytest.raises(ValueError, match="text holds more than 1,000 bytes"):
        read_file(tmp_path / "text")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(ValueError, match=f"{path} is no regular file"):
            read_file(path)


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
        mnist.MNISTDataModule(tmp_path).read()
    monkeypatch.setattr(mnist, "MD5", hashes)
    with pytest.raises(ValueError, match="no file of MNIST"):  # which it asks for next
        mnist.MNISTDataModule(tmp_path).read()
    assert files_below(tmp_path) == set(files)
    for name, content in files.items():
        assert (tmp_path / "MNIST" / "raw" / name).read_bytes() == content
