"""Character-level Wikipedia (Figure 3, Table 1): predict each next character of enwik8.

The first 90 million of its 100 million bytes train, 5 million validate and the last 5 million test;
205 different ones occur [paper]. Where neither the file nor a network is there, the text that every
Python carries stands in; what is made from it is called python_topics, and never Wikipedia.
"""

from functools import cached_property
from pathlib import Path

from tlstm.tasks import texts
from tlstm.tasks.text_streams import StreamDataModule, Text, encode
from tlstm.tasks.texts import ENWIK8, SOURCES, Source


class WikipediaDataModule(StreamDataModule):
    """Enwik8 as 100 streams, 50 characters at a time [paper], or another text in its place.

    The alphabet is the different bytes of the whole text: 205 of enwik8.

    Args:
        source: "wikipedia" is enwik8, downloaded where it is not there; "wikipedia_sample" is the
            file at `path`; "python_topics" is the text that every Python carries.
        text: what the text is known by, as `texts.fingerprint` has it; "auto" takes any.
        data_dir: holds, or will hold, enwik8, enwik8.zip or enwik8.gz in the directory enwik8.
        path: a file in the place of that: plain, .gz or .zip; None for none.
        batch_size: streams of all devices together; 100 in the paper.
        timesteps: characters of a chunk; 50 in the paper.
        samples_per_epoch: chunks of all streams from one validation to the next.
        evaluation_streams: streams of validation and of test.
        context: characters that each of these reads before those that it answers for [ours].
        num_workers: processes that cut training samples ahead; 0 cuts them in the trainer's own.

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(
        self,
        source: Source = "wikipedia",
        text: str = "auto",
        data_dir: str | Path = "data",
        path: str | Path | None = None,
        batch_size: int = 100,
        timesteps: int = 50,
        samples_per_epoch: int = 180_000,
        evaluation_streams: int = 100,
        context: int = 500,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            batch_size, timesteps, samples_per_epoch, evaluation_streams, context, num_workers
        )
        if source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")
        self.source = source
        self.fingerprint = text
        self.data_dir = Path(data_dir)
        self.path = None if path is None else Path(path)

    available_source = staticmethod(texts.available_source)
    fingerprint_of = staticmethod(texts.fingerprint_of)

    @property
    def characters(self) -> int:
        """Length of the whole text."""
        return ENWIK8.size if self.source == "wikipedia" else len(self.text.symbols) - 1

    @property
    def input_size(self) -> int:
        """Different symbols that an input may be."""
        return ENWIK8.symbols if self.source == "wikipedia" else len(self.text.alphabet)

    @cached_property
    def text(self) -> Text:
        """The whole text in symbols, read once.

        Raises:
            ValueError: it is not to be had, damaged, or another than the one expected.
            OSError: it cannot be read or written.
        """
        content = texts.read_text(self.source, self.data_dir, self.path)
        found = texts.fingerprint(content)
        if self.fingerprint not in ("auto", found):
            raise ValueError(
                f"task.text={self.fingerprint} is another text than the {self.source} found here, "
                f"which is {found}; task.text=auto takes this one"
            )
        return encode(content)
