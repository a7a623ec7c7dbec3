"""Records as runs left them, in a directory of runs or in an archive of one.

Everything may come from elsewhere: sizes are bounded, only regular files are read, archives are
never unpacked, and nothing that cannot be read is passed over in silence.
"""

import tarfile
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

from tlstm.records.lines import parse_lines
from tlstm.records.measurement import EXPERIMENT as RUNTIME
from tlstm.records.measurement import Measurement, parse_measurement
from tlstm.records.schema import LARGEST, Record, parse_record
from tlstm.utils import open_regular, printable, read_regular, sentence

LARGEST_HEADER = 2**20  # bytes
LARGEST_PADDING = 2**24  # bytes of zeros behind an archive's last member
READ_WHOLE = (  # kinds of members that describe the next one
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
LEFT_OUT = "scratch"  # runs for their own sake


class Found(NamedTuple):
    """The content of a source.

    Attributes:
        records: of finished runs.
        measurements: of the benchmark.
        problems: one sentence for each file and directory that could not be read.
    """

    records: list[Record]
    measurements: list[Measurement]
    problems: list[str]


class _File(NamedTuple):
    experiment: str
    place: str
    read: Callable[[], bytes]


def read_source(source: Path, experiments: Collection[str] = ()) -> Found:
    """Read the records of finished runs and the benchmark's measurements.

    Args:
        source: directory of runs, <experiment>/<run>/record.json and runtime/<time>.jsonl, an
            archive of one (.tar, .tar.gz, .tar.xz, ...), or a file of measurements.
        experiments: those to read, "runtime" for measurements; all but "scratch" if empty.

    Raises:
        OSError, ValueError: the source itself cannot be read, or an experiment is not in it.
    """
    if not source.exists():
        names = ", ".join(experiments) or "a run"
        raise FileNotFoundError(f"{source} does not exist: it holds no record of {names}")

    def wanted(experiment: str) -> bool:
        return experiment in experiments if experiments else experiment != LEFT_OUT

    found, seen = Found([], [], []), set()
    for file in _files(source, wanted, found.problems):
        seen.add(file.experiment)
        if not wanted(file.experiment):
            continue
        try:
            if file.experiment == RUNTIME:
                found.measurements.extend(parse_lines(file.read(), file.place, parse_measurement))
            else:
                found.records.append(parse_record(file.read(), file.place, file.experiment))
        except (OSError, ValueError) as error:
            found.problems.append(sentence(error))
    missing = [name for name in experiments if name not in seen]
    if missing:
        said = f"{source} holds no record of {', '.join(missing)}; it has {sorted(seen)}"
        if not found.problems:
            raise ValueError(said)
        found.problems.append(said)
    return found


def _files(source: Path, wanted: Callable[[str], bool], problems: list[str]) -> Iterator[_File]:
    if source.is_dir():
        return _files_below(source, wanted, problems)
    if source.suffix == ".jsonl":
        return iter([_File(RUNTIME, printable(source), partial(read_regular, source, LARGEST))])
    return _archived_files(source)


def _files_below(
    source: Path, wanted: Callable[[str], bool], problems: list[str]
) -> Iterator[_File]:
    for experiment in _entries(source, problems):
        noted = problems if wanted(experiment.name) else []
        for entry in _entries(experiment, noted):
            below = [entry] if entry.suffix == ".jsonl" else _entries(entry, noted)
            for path in below:
                if _is_of(experiment.name, path.name):
                    read = partial(read_regular, path, LARGEST)
                    yield _File(experiment.name, printable(path), read)


def _is_of(experiment: str, name: str) -> bool:
    """Return True for the name of a file that is collected from an experiment."""
    return name.endswith(".jsonl") if experiment == RUNTIME else name == "record.json"


def _entries(directory: Path, problems: list[str]) -> list[Path]:
    """Return the files of a directory in their order, none if it is a file or cannot be read."""
    try:
        return sorted(directory.iterdir())
    except NotADirectoryError:
        return []
    except OSError as error:
        problems.append(sentence(error))
        return []


class _Header(tarfile.TarInfo):
    """A member's header; what tarfile reads into memory at once, such as a name, is bounded."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if header.size > LARGEST_HEADER and header.type in READ_WHOLE:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


def _archived_files(source: Path) -> Iterator[_File]:
    """Yield the files of an archive, each to be read before the next.

    Raises:
        ValueError: it is damaged, or not whole.
    """
    with open_regular(source) as file:
        try:
            with tarfile.open(fileobj=file, tarinfo=_Header) as archive:
                last = -1
                for member in archive:
                    if not last < member.offset < archive.offset:  # or it would never end
                        raise tarfile.ReadError("a member of a negative size")
                    last = member.offset
                    parts = PurePosixPath("-", "-", "-", member.name).parts
                    experiment = RUNTIME if parts[-2] == RUNTIME else parts[-3]
                    if _is_of(experiment, parts[-1]) and not member.isdir():
                        place = f"{printable(member.name)} in {printable(source)}"
                        yield _File(experiment, place, partial(_content, archive, member, place))
                _check_end(archive)
        except Exception as error:  # a damaged archive may break anything within tarfile
            raise ValueError(
                f"{printable(source)} is not a readable archive, or not a whole one"
            ) from error


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, place: str) -> bytes:
    try:
        file = archive.extractfile(member)
        content = file.read(LARGEST + 1) if file else None
    except Exception as error:
        raise ValueError(f"{place} cannot be read") from error
    if content is None or len(content) > LARGEST:
        raise ValueError(f"{place} is no regular file of at most {LARGEST:,} bytes")
    return content


def _check_end(archive: tarfile.TarFile) -> None:
    """Refuse an archive that does not end with zeros: a damaged header looks like an end."""
    file = cast(IO[bytes], archive.fileobj)
    file.seek(archive.offset)
    end = file.read(LARGEST_PADDING)
    if len(end) < tarfile.BLOCKSIZE or any(end) or file.read(1):
        raise tarfile.ReadError("data behind the last member")
