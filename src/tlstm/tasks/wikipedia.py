"""Character-level Wikipedia (Figure 3, Table 1): predict each next character of enwik8.

A text is bytes, and each byte is a character. The first 90 million of enwik8's 100 million train,
5 million validate and the last 5 million test; 205 different ones occur [paper].

Other texts have their own names in every output: `wikipedia_sample` is the first 4,154,000
characters of enwik8, divided 90/5/5 as well [ours], `python_topics` is the help on Python's
keywords and types in `pydoc_data.topics`, and `text_file` is a file of yours.
"""

import hashlib
import platform
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from torch import Tensor

from tlstm.tasks.base import SequenceDataModule
from tlstm.tasks.download import fetch, read_file
from tlstm.tasks.text_streams import StreamDataset, Text, encode, every_character, whole_chunks
from tlstm.utils import at_least

Source = Literal["wikipedia", "wikipedia_sample", "python_topics", "text_file"]

URL = "http://mattmahoney.net/dc/enwik8.zip"  # has the text as its only file
VOCABULARY_SIZE = 205  # different bytes in enwik8
SUFFIXES = ("", ".zip", ".gz")
ADVICE = "task=text_file takes a text of yours, task=python_topics the one that is part of Python"


class Published(NamedTuple):
    """A published text.

    Attributes:
        name: of its file in the directory enwik8, without .zip or .gz.
        size: its length in bytes.
        sha256: its hash in hexadecimal digits.
    """

    name: str
    size: int
    sha256: str


ENWIK8 = Published(
    name="enwik8",
    size=10**8,
    sha256="2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
)
SAMPLE = Published(
    name="enwik8-first-4154000",
    size=4_154_000,
    sha256="ec02a0d45e64ed0362d7861f2d986f9b0ff53aab96503356b426e4781eb134b7",
)
PUBLISHED: dict[str, Published] = {"wikipedia": ENWIK8, "wikipedia_sample": SAMPLE}


class WikipediaDataModule(SequenceDataModule):
    """Enwik8, or a text in its place, as streams: 90 % train, 5 % validate and 5 % test [paper].

    Training reads `batch_size` streams, each from its beginning to its end, then all of them
    again. Validation and test count every character of their parts once; their streams first read
    some characters of the text before as context. Each device has its own streams.

    The tokens are the different bytes of the whole text: 205 for enwik8. Its sample has 200 of
    them, and still 205 tokens, so that models have the paper's parameter numbers.

    Args:
        source: "wikipedia" is enwik8, downloaded if it is missing; "wikipedia_sample" is its
            beginning, from a file of its own or from enwik8; "text_file" is the file at `path`;
            "python_topics" is the text that is part of Python.
        text: the expected `fingerprint` of the text; None accepts any.
        data_dir: directory of enwik8/enwik8 or enwik8/enwik8-first-4154000, plain, .zip or .gz, or
            of the download.
        path: another file to read: plain, or packed as for `read_file`.
        batch_size: streams of all devices together; 100 in the paper.
        timesteps: characters of a chunk, through which gradients go back; 50 in the paper.
        samples_per_epoch: chunks of all streams from one validation to the next, a multiple of
            `batch_size`.
        evaluation_streams: streams of validation and of test; the devices must share them evenly.
        context: characters that each of these reads before the first that counts [ours].
        num_workers: processes that cut training samples ahead; 0 cuts them in the trainer's.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        source: Source = "wikipedia",
        text: str | None = None,
        data_dir: str | Path = "data",
        path: str | Path | None = None,
        batch_size: int = 100,
        timesteps: int = 50,
        samples_per_epoch: int = 180_000,
        evaluation_streams: int = 100,
        context: int = 500,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, samples_per_epoch, 0, num_workers, evaluation_streams)
        if source not in get_args(Source):
            raise ValueError(f"source must be one of {', '.join(get_args(Source))}, got {source!r}")
        self.source = source
        self.fingerprint = text
        self.data_dir = Path(data_dir)
        self.path = None if path is None else Path(path)
        self._timesteps = at_least("timesteps", timesteps, 1)
        self.evaluation_streams = at_least("evaluation_streams", evaluation_streams, 1)
        self.context = at_least("context", context, 0)

    @property
    def characters(self) -> int:
        """Length of the whole text."""
        published = PUBLISHED.get(self.source)
        return published.size if published else len(self.text.tokens) - 1

    @property
    def input_size(self) -> int:
        """Number of different tokens."""
        return VOCABULARY_SIZE if self.source in PUBLISHED else len(self.text.alphabet)

    @cached_property
    def text(self) -> Text:
        """The whole text in tokens, read once.

        Raises:
            ValueError: the text is missing, damaged, or not the expected one.
            OSError: it cannot be read or written.
        """
        content = read_text(self.source, self.data_dir, self.path)
        found = fingerprint(self.source, content)
        if self.fingerprint not in (None, found):
            raise ValueError(
                f"task.text={self.fingerprint} is another text than the {self.source} found here, "
                f"which is task.text={found}"
            )
        return encode(content)

    @property
    def alphabet(self) -> bytes:  # type: ignore[override]  # known once the text is read
        """The different bytes of the text; token n is alphabet[n]."""
        return self.text.alphabet

    @property
    def parts(self) -> tuple[range, range, range]:
        """The characters of training, validation and test: 90 %, 5 % and 5 %."""
        held_out = self.characters // 20
        test, validation = self.characters - held_out, self.characters - 2 * held_out
        return range(validation), range(validation, test), range(test, self.characters)

    @property
    def timesteps(self) -> int:
        """Length T of every sample: the characters of a chunk."""
        return self._timesteps

    @property
    def output_size(self) -> int:
        """Number of different tokens to predict."""
        return self.input_size

    @property
    def samples_per_pass(self) -> int:  # type: ignore[override]  # once the text is read
        """Training samples from the beginning of the streams to their end."""
        training = self.parts[0]
        self._check_length("training", training, "batch_size", self.batch_size)
        return len(training) // self.batch_size // self.timesteps * self.batch_size

    @property
    def training_set(self) -> StreamDataset:
        """The training streams, with any index from 0 on."""
        stretches = whole_chunks(self.parts[0], self.batch_size, self.timesteps)
        return StreamDataset(self.text, stretches, self.timesteps, samples=self.samples_per_epoch)

    @property
    def validation_set(self) -> StreamDataset:
        """The validation streams."""
        return self._held_out("validation", self.parts[1])

    @property
    def test_set(self) -> StreamDataset:
        """The test streams."""
        return self._held_out("test", self.parts[2])

    def prepare_data(self) -> None:
        """Read the text, after downloading it if it is missing, and check its length.

        Raises:
            ValueError: the text is missing, damaged or too short.
            OSError: it cannot be read or written.
        """
        _ = self.text, self.samples_per_pass, self.validation_set, self.test_set

    def token_name(self, token: int) -> str:
        """Return the character, or a replacement mark for a byte that is none by itself."""
        return self.render([token])

    def render(self, tokens: Sequence[int] | Tensor) -> str:
        """Write tokens [T] as text; a token that does not occur in it is nothing."""
        alphabet = self.text.alphabet
        characters = (alphabet[token : token + 1] for token in np.asarray(tokens).tolist())
        return b"".join(characters).decode(errors="replace")

    def _held_out(self, name: str, part: range) -> StreamDataset:
        self._check_length(name, part, "evaluation_streams", self.evaluation_streams)
        stretches = every_character(part, self.evaluation_streams)
        return StreamDataset(self.text, stretches, self.timesteps, self.context)

    def _check_length(self, name: str, part: range, argument: str, streams: int) -> None:
        """Refuse a part that is too short for one chunk of every stream."""
        if len(part) < streams * self.timesteps:
            raise ValueError(
                f"the text has {len(part):,} characters for {name}, and {argument}={streams} of "
                f"{self.timesteps} characters need {streams * self.timesteps:,}: take a longer "
                "text or fewer streams"
            )

    def _evaluation_batch_size_on(self, world_size: int) -> int:
        if self.evaluation_streams % world_size:
            raise ValueError(
                "evaluation_streams must be a multiple of the number of devices "
                f"({world_size}), got {self.evaluation_streams}"
            )
        return self.evaluation_streams // world_size


def read_text(source: Source, data_dir: Path, path: Path | None) -> bytes:
    """Read a text, after downloading it if it is enwik8 and missing.

    Raises:
        ValueError: the text is missing, damaged, or not the one that `source` names.
        OSError: it cannot be read or written.
    """
    if source == "python_topics":
        if path is not None:
            raise ValueError(f"task.path={path} is no {source}; leave one of both out")
        return python_topics()
    if source == "text_file":
        if path is None:
            raise ValueError("task=text_file needs task.path, the file to read")
        return read_text_file(path)
    published = PUBLISHED[source]
    path = path or existing(data_dir, published) or existing(data_dir, ENWIK8)
    path = path or fetch_enwik8(data_dir)
    text = read_text_file(path)
    if len(text) == ENWIK8.size:  # or the beginning of it
        text = text[: published.size]
    check(path, text, published)
    return text


def python_topics() -> bytes:
    """Return the help texts of this Python, which differ a little between versions."""
    topics: dict[str, str] = import_module("pydoc_data.topics").topics
    return "\n".join(topics[name] for name in sorted(topics)).encode()


def read_text_file(path: Path) -> bytes:
    """Read a text, plain or packed; see `read_file`.

    Raises:
        ValueError: the file is missing, empty, damaged, packed in another way or no text.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file to train on")
    text = read_file(path)
    if not text:
        raise ValueError(f"{path} is empty")
    if b"\0" in text:  # as of UTF-16, or packed in a way without a beginning of its own
        raise ValueError(f"{path} is no plain text: it has bytes of zero")
    return text


def fingerprint(source: Source, text: bytes) -> str:
    """Return the beginning of a text's SHA-256; of Python's own text the version of Python."""
    if source == "python_topics":
        return f"python-{platform.python_version()}"
    return f"sha256-{hashlib.sha256(text).hexdigest()[:16]}"


def existing(data_dir: Path, text: Published) -> Path | None:
    """Return the file of a published text, if there is one."""
    files = (data_dir / "enwik8" / (text.name + suffix) for suffix in SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def fetch_enwik8(data_dir: Path) -> Path:
    """Download enwik8.

    Raises:
        ValueError: there is no network, or the downloaded file is not enwik8.
        OSError: the directory cannot be written.
    """
    archive = data_dir / "enwik8" / "enwik8.zip"
    return fetch([URL], archive, lambda file: check(file, read_file(file), ENWIK8), ADVICE)


def check(path: Path, text: bytes, expected: Published) -> None:
    """Refuse the text of a file if it is not the published one.

    Raises:
        ValueError: the text differs in its length or hash.
    """
    if len(text) != expected.size:
        found = f"it has {len(text):,} bytes, not {expected.size:,}"
    else:
        sha256 = hashlib.sha256(text).hexdigest()
        if sha256 == expected.sha256:
            return
        found = f"its SHA-256 is {sha256}, not {expected.sha256}"
    raise ValueError(f"{path} is damaged or not {expected.name}: {found}")
