import bz2
import errno
import functools
import gzip
import itertools
import json
import lzma
import multiprocessing
import operator
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tlstm.records import provenance
from tlstm.records.schema import CurvePoint, Record, read_record, write_record
from tlstm.records.sources import read_source
from tlstm.records.store import CURVE_POINTS, append, frame, latest, load, load_all, thin
from tlstm.results import main
from tlstm.utils import replace_file
from worlds import CPU, PUBLISHED, STARTED, make_record, points


def numbered(number: int, **changes) -> Record:
    return make_record(identifier=f"{number:016x}", seed=number, **changes)


def store_of(results: Path) -> Path:
    return results / "fig4" / "records.jsonl"


def leave(runs: Path, record: Record, name: str) -> Path:
    path = runs / record.experiment / name / "record.json"
    write_record(record, path)
    return path


# The schema


@given(
    accuracy=st.floats(0, 1),
    seconds=st.floats(0, 1e12),
    loss=st.floats(),
    minutes=st.floats(0, 1e5),
    label=st.text(min_size=1, max_size=200).filter(lambda t: t.isprintable() and "$" not in t),
    outcome=st.sampled_from([("solved", 7), ("budget spent", None), ("budget spent", 7)]),
)
def test_a_record_reads_back_as_it_was_written(
    tmp_path_factory, accuracy, seconds, loss, minutes, label, outcome
):
    record = make_record(
        curve=[CurvePoint(samples=7, accuracy=accuracy, loss=loss, seconds=seconds)],
        milliseconds_per_timestep=seconds,
        best={"accuracy": accuracy, "loss": loss},
        started=STARTED - timedelta(minutes=minutes),
        label=label,
        outcome=outcome[0],
        samples_to_threshold=outcome[1],
    )
    path = tmp_path_factory.getbasetemp() / "runs" / "new" / "record.json"
    write_record(record, path)
    assert read_record(path) == record


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_a_diverged_run_still_leaves_a_record(tmp_path, loss):
    point = CurvePoint(samples=7, accuracy=0.1, loss=loss, seconds=1.0)
    record = make_record(curve=[point], last={"accuracy": 0.1, "loss": loss})
    assert record.curve[0].loss is None
    assert record.last == {"accuracy": 0.1, "loss": None}
    write_record(record, tmp_path / "record.json")
    assert json.loads((tmp_path / "record.json").read_text())["last"]["loss"] is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"milliseconds_per_timestep": float("nan")}, "milliseconds_per_timestep"),
        ({"wall_seconds": float("inf")}, "wall_seconds"),
        ({"best": {"accuracy": float("nan")}}, "best.accuracy"),
        ({"config": {"clip": float("inf")}}, "config"),
        ({"config": {"path": Path("x")}}, "config"),
        ({"threshold": 99}, "threshold"),
        ({"identifier": "0123"}, "identifier"),
        ({"experiment": "../fig4"}, "experiment"),
        ({"scale": "a/b"}, "scale"),
        ({"label": "my $x"}, "label"),
        ({"label": "a\nb"}, "label"),
        ({"label": ""}, "label"),
        ({"samples": 10**30}, "samples"),
        ({"seed": -1}, "seed"),
        ({"wall_seconds": 1e300}, "wall_seconds"),
        ({"best": {"accuracy": 5}}, "best"),
        ({"test": {"accuracy": -0.1}}, "test"),
        ({"config": {"model": None}}, "config.model must hold settings"),
        ({"config": {"model": [1]}}, "model must hold settings"),
        ({"config": {"model": {"core": 3}}}, "model.core must hold settings"),
        ({"config": {"training": {"batch_size": "x"}}}, "training.batch_size must be an integer"),
        ({"config": {"task": {"base": 0}}}, "task.base must be an integer"),
        ({"started": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))}, "started"),
        ({"finished": datetime(9999, 12, 31, tzinfo=UTC)}, "finished"),
        ({"outcome": "crashed"}, "outcome"),
        ({"started": datetime(2025, 3, 1)}, "started"),
        ({"finished": STARTED - timedelta(seconds=1)}, "finished"),
        ({"outcome": "solved"}, "samples_to_threshold"),
        ({"surprise": 1}, "surprise"),
        ({"format": 3}, "format"),
        ({"format": 1}, "format 1; `python -m tlstm.results migrate` of commit"),
        (
            {
                "curve": [
                    CurvePoint(samples=samples, accuracy=0.5, loss=1.0, seconds=1.0)
                    for samples in (2, 1)
                ]
            },
            "curve",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_name(change, named):
    with pytest.raises(ValidationError) as caught:
        make_record(**change)
    assert named in re.sub(r"\n *", ".", str(caught.value))


# Writing


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch, function):
    path, store = tmp_path / "runs" / "record.json", store_of(tmp_path)
    write_record(make_record(), path)
    append([numbered(1)], tmp_path)
    before = path.read_bytes(), store.read_bytes()

    def no_space(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, function, no_space)
        with pytest.raises(OSError, match="No space left") as caught:
            write_record(make_record(seed=1), path)
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
        with pytest.raises(OSError, match=r"records\.jsonl"):
            append([numbered(2)], tmp_path)
    assert (path.read_bytes(), store.read_bytes()) == before
    assert not list(tmp_path.rglob("*.tmp"))
    assert append([numbered(2)], tmp_path) == (1, [])  # and its lock is free again


def test_a_file_in_place_of_a_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/record\.json"):
        write_record(make_record(), tmp_path / "file" / "record.json")


def test_writing_keeps_links_and_modes(tmp_path):
    file, link = tmp_path / "there" / "file", tmp_path / "link"
    link.symlink_to("there/file")
    replace_file(link, b"new")  # a link to a file and a directory that are still missing
    file.chmod(0o664)
    replace_file(link, b"newer")
    assert link.is_symlink()
    assert (file.read_bytes(), file.stat().st_mode & 0o7777) == (b"newer", 0o664)
    assert [path.name for path in file.parent.iterdir()] == ["file"]


def test_what_is_no_regular_file_is_written_to_as_it_is(tmp_path):
    pipe, out = tmp_path / "pipe", Path("/dev/null")
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        replace_file(pipe, b"through")
        assert read.result(10) == b"through"
    replace_file(out, b"")
    assert pipe.is_fifo()
    assert out.is_char_device()
    with pytest.raises(OSError, match=f"cannot be written: .*{tmp_path}"):
        replace_file(tmp_path, b"")


def run_alone(code: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run code in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    path = leave(runs, make_record(), "run")
    before = path.read_bytes()
    ended = run_alone(
        """
        import os, pathlib, signal, sys
        from tlstm.records.schema import read_record, write_record
        os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
        path = pathlib.Path(sys.argv[1])
        write_record(read_record(path).model_copy(update={"seed": 1}), path)
        """,
        path,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert path.read_bytes() == before
    assert main(["collect", "--runs", str(runs), "--results", str(results)]) == 0
    assert len(load(results, "fig4")) == 1


def test_reading_names_the_file_and_what_is_wrong(tmp_path):
    path = leave(tmp_path, make_record(), "run")
    values = json.loads(path.read_text())
    for content, wrong in [
        (path.read_text()[:100], "JSON"),
        ("", "JSON"),
        ("\udcff", "JSON"),
        (json.dumps(values | {"depth": 0}), "depth"),
        (json.dumps(values | {"last": {"accuracy": "x"}}), "last.accuracy"),
        (json.dumps({name: values[name] for name in values if name != "seed"}), "seed"),
    ]:
        path.write_bytes(content.encode(errors="surrogateescape"))
        with pytest.raises(ValueError, match=wrong) as caught:
            read_record(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_collecting_and_drawing_import_nothing_that_trains(tmp_path):
    """So that they take seconds."""
    shutil.copy(PUBLISHED, tmp_path)
    ended = run_alone(
        """
        import sys
        from tlstm import figures, report, results
        figures.main(["--results", sys.argv[1]])
        print(*sys.modules)
        """,
        tmp_path,
    )
    assert ended.returncode == 0, ended.stderr
    loaded = set(ended.stdout.split())
    assert {"tlstm.report", "tlstm.results", "tlstm.reporting.memory_cells"} <= loaded
    assert not loaded & {"torch", "lightning", "hydra", "wandb", "matplotlib.pyplot"}


# Thinning


def finite(point: CurvePoint) -> bool:
    return point.loss is not None


loss = operator.attrgetter("loss")
accuracies = st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.99, 0.995, 1.0])
curves = st.lists(accuracies, max_size=400).map(points)
late = points([0.5] * 100 + [0.99] * 33 + [0.995] * 33 + [1.0] * 33)


@example(curve=late, threshold=0.99, limit=8)
@given(curve=curves, threshold=st.sampled_from([0.5, 0.99, 0.999]), limit=st.integers(8, 200))
def test_thinning_keeps_what_matters(curve, threshold, limit):
    kept = thin(curve, threshold, limit)
    assert len(kept) <= limit
    assert kept == [point for point in curve if point in kept]  # a part, in its order
    if len(curve) <= limit:
        assert kept == curve
        return
    assert {curve[0].samples, curve[-1].samples} <= {point.samples for point in kept}
    assert max(point.accuracy for point in kept) == max(point.accuracy for point in curve)
    assert min(filter(finite, kept), key=loss) == min(filter(finite, curve), key=loss)
    for passes in (threshold.__le__, threshold.__lt__):
        first = [point for point in curve if passes(point.accuracy)][:1]
        assert first == [point for point in kept if passes(point.accuracy)][:1]
    assert thin(kept, threshold, limit) == kept


def test_thinning_leaves_no_long_gap_at_the_start_or_anywhere():
    curve = points([0.5] * 3_000)
    kept = [point.samples // 10 for point in thin(curve, 0.99)]
    assert kept[:6] == [0, 1, 2, 3, 4, 5]
    assert max(after - before for before, after in itertools.pairwise(kept)) < 80
    assert CURVE_POINTS * 0.8 < len(kept) <= CURVE_POINTS


def test_thinning_to_almost_nothing_is_refused():
    with pytest.raises(ValueError, match="limit must be 8 or more, got 3"):
        thin([], 0.99, 3)


# The store


def test_append_adds_only_what_is_new_and_touches_no_line(tmp_path):
    assert load(tmp_path, "fig4") == []
    first = [numbered(3), numbered(1)]
    assert append(first, tmp_path) == (2, [])
    before = store_of(tmp_path).read_bytes()
    again = numbered(1, started=STARTED + timedelta(hours=1), finished=STARTED + timedelta(hours=2))
    new = [numbered(2), again, numbered(2), numbered(9, experiment="depth")]
    assert append([*first, *new], tmp_path) == (3, [])
    assert store_of(tmp_path).read_bytes().startswith(before)
    assert load(tmp_path, "fig4") == [*first, numbered(2), again]
    assert load(tmp_path, "depth") == [numbered(9, experiment="depth")]
    assert latest(load(tmp_path, "fig4")) == [numbered(3), again, numbered(2)]


def test_a_store_may_be_a_link(tmp_path):
    """Its lock lies beside the file, where others who reach it another way look for one."""
    store, real = store_of(tmp_path), tmp_path / "elsewhere" / "fig4.jsonl"
    store.parent.mkdir()
    store.symlink_to(real)
    append([numbered(1)], tmp_path)
    assert store.is_symlink()
    assert load(tmp_path, "fig4") == [numbered(1)]
    assert {path.name for path in store.parent.iterdir()} == {"records.jsonl"}
    assert {path.name for path in real.parent.iterdir()} == {"fig4.jsonl", "fig4.jsonl.lock"}


OTHER_RESULT = {"last": {"accuracy": 0.1, "loss": 1.0}}
OTHER_SETTINGS = {"depth": 7, "started": STARTED - timedelta(hours=1)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"experiment": "fig5"}, "experiment: it is a record of fig5, not of fig4"),
        (OTHER_RESULT, "started: addition-tlstm_3d_cn-.* has another result"),
        (OTHER_SETTINGS, "identifier: that of addition-.* is also that of other settings"),
        ({"config": {"model": [1]}}, "config: model must hold settings by their names"),
    ],
)
def test_a_store_that_cannot_be_drawn_is_refused_and_the_others_are_not(tmp_path, changes, said):
    append([numbered(1), numbered(2, experiment="depth")], tmp_path)
    wrong = json.loads(numbered(1).model_dump_json()) | json.loads(json.dumps(changes, default=str))
    with store_of(tmp_path).open("a") as store:
        store.write(json.dumps(wrong) + "\n")
    with pytest.raises(ValueError, match=rf"^line 2 of .*records.jsonl is not a .*: {said}"):
        load(tmp_path, "fig4")
    stores, (problem,) = load_all(tmp_path)
    assert stores == {"depth": [numbered(2, experiment="depth")]}
    assert re.search(said, problem)


@pytest.mark.parametrize("changes", [OTHER_RESULT, OTHER_SETTINGS])
def test_what_contradicts_a_store_is_not_added_to_it(tmp_path, capsys, changes):
    runs, results = tmp_path / "runs", tmp_path / "results"
    append([numbered(1)], results)
    leave(runs, numbered(1, **changes), "other")
    leave(runs, numbered(2), "second")
    assert collect(runs, results) == 1
    assert "1 of them new" in (said := capsys.readouterr()).out
    assert "left out: " in said.err
    assert load(results, "fig4") == [numbered(1), numbered(2)]


def test_latest_is_the_one_that_finished_last_in_any_order():
    runs = [
        make_record(finished=STARTED + timedelta(hours=hours), samples=hours) for hours in (2, 3, 1)
    ]
    assert [record.samples for record in latest(runs)] == [3]
    assert [record.samples for record in latest(reversed(runs))] == [3]


def test_append_thins_long_curves(tmp_path):
    append([make_record(curve=points([0.5] * 1_000))], tmp_path)
    assert len(load(tmp_path, "fig4")[0].curve) <= CURVE_POINTS


def append_some(results: Path, writer: int) -> None:
    for place in range(8):
        append([numbered(100 * writer + place), numbered(99_999)], results)


def test_many_writers_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_some, args=(tmp_path, writer)) for writer in range(5)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    seeds = [record.seed for record in load(tmp_path, "fig4")]
    expected = {100 * writer + place for writer in range(5) for place in range(8)} | {99_999}
    assert len(seeds) == len(expected)
    assert set(seeds) == expected
    for writer in range(5):  # each writer's own records keep their order
        own = [seed for seed in seeds if seed // 100 == writer]
        assert own == sorted(own)


def test_a_corrupt_line_is_named_and_the_store_left_alone(tmp_path):
    append([numbered(1), numbered(2)], tmp_path)
    store = store_of(tmp_path)
    store.write_text(store.read_text() + "<<<<<<< HEAD\n")
    before = store.read_bytes()
    for touch in (lambda: load(tmp_path, "fig4"), lambda: append([numbered(3)], tmp_path)):
        with pytest.raises(ValueError, match=r"line 3 of .*fig4/records\.jsonl"):
            touch()
    assert store.read_bytes() == before


def test_a_store_without_its_last_newline_stays_whole(tmp_path):
    append([numbered(1)], tmp_path)
    store = store_of(tmp_path)
    store.write_bytes(store.read_bytes().rstrip(b"\n"))
    append([numbered(2)], tmp_path)
    assert load(tmp_path, "fig4") == [numbered(1), numbered(2)]


# The command line


@pytest.fixture
def runs(tmp_path):
    directory = tmp_path / "runs"
    leave(directory, numbered(1), "first")
    leave(directory, numbered(2, experiment="depth"), "second")
    leave(directory, numbered(3, experiment="scratch"), "third")
    (directory / "fig4" / "interrupted").mkdir()
    return directory


def collect(runs: Path, results: Path, *names: str) -> int:
    return main(["collect", "--runs", str(runs), "--results", str(results), *names])


def test_collect_takes_all_but_scratch_once(runs, tmp_path, capsys):
    results = tmp_path / "results"
    assert collect(runs, results) == 0
    assert "fig4: 1 records, 1 of them new" in capsys.readouterr().out
    assert load(results, "fig4") == [numbered(1)]
    assert load(results, "depth") == [numbered(2, experiment="depth")]
    assert load(results, "scratch") == []
    assert collect(runs, results, "scratch", "fig4") == 0
    assert "fig4: 1 records, 0 of them new" in capsys.readouterr().out
    assert load(results, "scratch") == [numbered(3, experiment="scratch")]
    assert load(results, "fig4") == [numbered(1)]


@pytest.mark.parametrize("root", [".", "runs", "elsewhere/runs"])
def test_collect_reads_an_archive_like_the_directory(runs, tmp_path, root):
    archive = tmp_path / "runs.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(runs, arcname=root)
    assert collect(archive, tmp_path / "a") == collect(runs, tmp_path / "b") == 0
    for name in ("fig4", "depth", "scratch"):
        assert load(tmp_path / "a", name) == load(tmp_path / "b", name)
    assert len(load(tmp_path / "a", "fig4")) == 1


def test_collect_leaves_bad_records_out_and_says_so(runs, tmp_path, capsys):
    bad = leave(runs, numbered(4), "bad")
    bad.write_text(bad.read_text()[:50])
    moved = leave(runs, numbered(5), "moved")
    (runs / "depth" / "moved").mkdir()
    moved.rename(runs / "depth" / "moved" / "record.json")
    (runs / "scratch" / "third" / "record.json").write_text("not read")
    assert collect(runs, tmp_path / "results") == 1
    message = capsys.readouterr().err
    assert str(bad) in message
    assert "is a record of fig4, not of depth" in message
    assert message.count("\n") == 2
    assert load(tmp_path / "results", "fig4") == [numbered(1)]


def test_collect_explains_what_it_cannot_do(runs, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    cut = tmp_path / "cut.tar.gz"
    with tarfile.open(cut, "w:gz") as file:
        file.add(runs, arcname="runs")
    cut.write_bytes(cut.read_bytes()[:-300])
    corrupt = tmp_path / "corrupt"
    append([numbered(1)], corrupt)
    store_of(corrupt).write_text("{}\n")
    for source, results, names, message in [
        (tmp_path / "none", tmp_path / "results", [], "none does not exist"),
        (tmp_path / "file", tmp_path / "results", [], "file is not a readable archive"),
        (cut, tmp_path / "results", [], "cut.tar.gz is not a readable archive"),
        (runs, tmp_path / "results", ["fig5"], "holds no record of fig5; it has"),
        (runs, tmp_path / "file", [], "file"),
        (runs, corrupt, [], "line 1 of"),
    ]:
        assert collect(source, results, *names) == 2
        said = capsys.readouterr().err.splitlines()
        assert said
        assert all(message in line for line in said)
        assert not load(tmp_path / "results", "fig4")


def archive_of(runs: Path, path: Path, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:
        file.add(runs, arcname="runs")
    return path


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz"])
def test_a_damaged_archive_is_refused(runs, tmp_path, capsys, suffix):
    """Wherever the damage is, and whatever tarfile would make of it."""
    plain = bytearray(archive_of(runs, tmp_path / "plain").read_bytes())
    with tarfile.open(tmp_path / "plain") as file:
        headers = [member.offset for member in file]
        end = file.offset  # zeros follow
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix]
    path, whole = tmp_path / f"runs.tar{suffix}", pack(bytes(plain))
    size = len(whole) if suffix else end
    damaged = [whole[: size * part // 8] for part in range(1, 8)]
    for place in (headers[0], headers[2], headers[-1]):
        damaged.append(pack(plain[:place] + b"\xff" * 100 + plain[place + 100 :]))
    damaged += [pack(plain + plain), pack(plain[:end]), b"", pack(b"x" * 10_000)]
    for content in damaged:
        path.write_bytes(content)
        assert collect(path, tmp_path / "results") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"error: {path} is not a readable archive, or not a whole one"
    path.write_bytes(whole)
    assert collect(path, tmp_path / "results") == 0


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Of two runs."""
    directory = tmp_path_factory.mktemp("archives")
    leave(directory / "runs", numbered(1), "first")
    leave(directory / "runs", numbered(2), "second")
    return archive_of(directory / "runs", directory / "whole.tar")


@settings(max_examples=200)
@given(data=st.data())
def test_an_archive_with_any_damage_is_read_whole_or_something_is_said(archive, data):
    path, content = archive.with_name("damaged.tar"), bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = read_source(path)
    except ValueError:
        return
    assert len(found.records) == 2 or found.problems


def claimed(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@functools.cache
def zeros() -> bytes:
    return gzip.compress(bytes(2**28), compresslevel=1)


@pytest.mark.parametrize(
    "header",
    [
        claimed("runs/fig4/a/record.json", 20 * 2**30),
        claimed("././@PaxHeader", 20 * 2**30, tarfile.XHDTYPE),
        claimed("././@LongLink", 20 * 2**30, tarfile.GNUTYPE_LONGNAME),
    ],
)
def test_what_an_archive_claims_is_not_read_into_memory(tmp_path, capsys, header):
    path = tmp_path / "runs.tar.gz"
    path.write_bytes(gzip.compress(header) + zeros())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert collect(path, tmp_path / "results") == 2
    assert "not a whole one" in capsys.readouterr().err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


def test_members_that_are_no_files_are_named(runs, tmp_path, capsys):
    path = tmp_path / "runs.tar"
    with tarfile.open(path, "w") as file:
        for name, kind, target in [
            ("runs/fig4/a/record.json", tarfile.FIFOTYPE, ""),
            ("runs/fig4/b\x1b[31m\n/record.json", tarfile.SYMTYPE, "nowhere"),
            ("runs/fig4/c/record.json", tarfile.SYMTYPE, "record.json"),
        ]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            file.addfile(member)
        file.add(runs, arcname="runs")
        file.add(runs / "fig4" / "first" / "record.json", arcname="moved/fig4/d/record.json")
    assert collect(path, tmp_path / "results") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert r"b\x1b[31m\n/record.json in" in lines[1]
    assert load(tmp_path / "results", "fig4") == [numbered(1)]


def test_what_cannot_be_read_is_named(runs, tmp_path, capsys, monkeypatch):
    """Directories, pipes, devices, links to nowhere, files that are too large."""
    below = runs / "fig4"
    for name in ("pipe", "device", "link", "large", "closed", "bad\x1b[31m\nname"):
        (below / name).mkdir()
    os.mkfifo(below / "pipe" / "record.json")
    (below / "device" / "record.json").symlink_to("/dev/zero")
    (below / "link" / "record.json").symlink_to("nowhere")
    with (below / "large" / "record.json").open("wb") as file:
        file.truncate(20 * 2**30)
    (below / "bad\x1b[31m\nname" / "record.json").write_text("{}")
    listed = Path.iterdir

    def closed(path):  # nothing is forbidden to root
        if path.name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", closed)
    assert collect(runs, tmp_path / "results") == 1
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("left out: ") for line in lines)
    for name, said in [
        (r"bad\x1b[31m\nname/record.json", "is not a valid record"),
        ("closed", "Permission denied"),
        ("device/record.json", "is no regular file"),
        ("large/record.json", "has more than 67,108,864 bytes"),
        ("link/record.json", "No such file"),
        ("pipe/record.json", "is no regular file"),
    ]:
        assert any(f"{below}/{name}" in line and said in line for line in lines), name
    assert len(lines) == 6
    assert load(tmp_path / "results", "fig4") == [numbered(1)]


def test_a_directory_without_finished_runs_is_no_error(tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    assert collect(tmp_path / "runs", tmp_path / "results") == 0
    assert "no finished run" in capsys.readouterr().out


# The table


def test_frame_has_one_flat_row_per_run():
    solved = numbered(2, outcome="solved", samples_to_threshold=2_000)
    table = frame([numbered(1), solved])
    assert len(table) == 2
    assert table["identifier"].tolist() == [f"{1:016x}", f"{2:016x}"]
    assert table["best_accuracy"].tolist() == [0.5, 0.5]
    assert table["test_loss"].tolist() == [1.6, 1.6]
    assert table["samples_to_threshold"].isna().tolist() == [True, False]
    assert table["samples_to_threshold"][1] == 2_000
    assert table["device"].tolist() == [CPU.device] * 2
    assert table["command"][0] == (
        "python -m tlstm.train task=addition 'note='\"'\"'two words'\"'\"''"
    )
    assert not {"curve", "config", "versions"} & set(table)
    assert frame([]).empty


def test_a_run_without_accuracy_has_a_row_all_the_same():
    table = frame([make_record(best={"bits_per_character": 2.5})])
    assert table["best_bits_per_character"].tolist() == [2.5]
    assert (100 * table["best_accuracy"]).isna().all()


# Provenance


def test_provenance_is_of_the_projects_own_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of one that it is installed in, nor of one that a variable names."""

    def git(place: Path, *arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(place), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit_of(place: Path) -> tuple[str | None, bool]:
        file = place / "src" / "tlstm" / "records" / "provenance.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        monkeypatch.setattr(provenance, "__file__", str(file))
        return provenance.commit()

    other, own = tmp_path / "other", tmp_path / "own"
    for place, name in ((other, "other"), (own, "tlstm")):
        place.mkdir()
        (place / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')
        git(place, "init", "-q")
        git(place, "add", ".")
        git(place, "commit", "-q", "-m", name)
    head = git(own, "rev-parse", "HEAD")
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "pyproject.toml").write_text((own / "pyproject.toml").read_text())
    for name, value in {
        "GIT_DIR": str(other / ".git"),
        "GIT_WORK_TREE": str(other),
        "GIT_INDEX_FILE": str(other / ".git" / "index"),
        "GIT_COMMIT": "1" * 40,
    }.items():
        monkeypatch.setenv(name, value)
    assert commit_of(own) == (head, False)
    (own / "pyproject.toml").write_text('[project]\nname = "tlstm"\nversion = "2"\n')
    assert commit_of(own) == (head, True)
    assert commit_of(other) == commit_of(other / ".venv" / "lib") == (None, False)
    assert commit_of(copy) == ("1" * 40, False)
    monkeypatch.setenv("GIT_COMMIT", "no commit")
    assert commit_of(copy) == (None, False)
