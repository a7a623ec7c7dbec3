"""The texts of Wikipedia: enwik8, its stand-ins, and what is refused."""

import gzip
import hashlib
import itertools
import math
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import forbid_network, measure_quickly, record_of, refused, train_here
from test_download import zipped
from texts_for_tests import TINY, WORDS, words, write_text
from tlstm.sweeping.grid import points, read_sweep_file
from tlstm.tasks import download, wikipedia
from tlstm.tasks.wikipedia import ENWIK8, python_topics
from tlstm.train import run_command
from tlstm.training.config import compose, flat
from tlstm.training.run import make_data, make_module

ROOT = Path(__file__).parents[1]
SWEEP = read_sweep_file(ROOT / "sweeps" / "fig3.yaml")
SMALL = words(2000)  # published by the server of these tests
BEGINNING = SMALL[:500]
DATA = ROOT / "data"

# Section 3 of paper.md
PARAMETERS = {
    "slstm": 10_500_205,
    "tlstm_2d_no_feedback": 10_504_687,
    "tlstm_2d": 10_123_844,
    "tlstm_2d_no_memory_convolution": 10_115_732,
    "tlstm_3d": 10_068_550,
    "tlstm_3d_ln": 10_068_550 + 2 * 522,
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Runs measure their runtime in next to no time, and no test asks a server of others."""
    measure_quickly(monkeypatch)
    forbid_network(monkeypatch)
    monkeypatch.chdir(tmp_path)


def tiny(output_dir: Path, *more: str) -> list[str]:
    return [*TINY, f"output_dir={output_dir}", *more]


# What the paper has


@pytest.mark.parametrize("point", points(SWEEP, []), ids=" ".join)
def test_figure_3_has_the_papers_parameters(point: list[str]) -> None:
    config = compose(["scale=paper", *point]).config
    with torch.device("meta"):
        module = make_module(config, make_data(config))
    parameters = sum(parameter.numel() for parameter in module.network.parameters())
    depth = config.model.depth
    expected = PARAMETERS | {"tlstm_3d_cn": 10_068_550 + 2 * 522 * depth**2}
    assert parameters == expected[config.model.name]
    assert config.model.depth == module.network.core.depth


def test_the_sweep_is_figure_3() -> None:
    drawn = [dict(text.split("=") for text in point) for point in points(SWEEP, [])]
    grid = {(point["model"], point["model.depth"]) for point in drawn}
    assert grid == set(itertools.product([*PARAMETERS, "tlstm_3d_cn"], "1234"))
    assert {point["experiment"] for point in drawn} == {"fig3"}
    assert (SWEEP.metric.name, SWEEP.metric.goal) == ("validation/bits_per_character", "minimize")


def test_the_papers_settings() -> None:
    config = compose(["scale=paper", "task=wikipedia"]).config
    found = flat(config)
    expected = {
        "training.batch_size": 100,
        "task.timesteps": 50,
        "training.learning_rate": 0.001,
        "model.core.forget_bias": 1.0,
    }
    assert {key: found[key] for key in expected} == expected
    data = make_data(config)
    sizes = [len(part) for part in data.parts]
    assert sizes == [90_000_000, 5_000_000, 5_000_000]
    assert (data.input_size, data.output_size) == (205, 205)
    assert data.samples_per_pass == 18_000 * 100
    assert config.training.max_samples == 50 * data.samples_per_pass
    assert data.samples_per_pass % config.training.samples_per_epoch == 0


@pytest.mark.parametrize(("scale", "task"), [("smoke", "python_topics"), ("paper", "wikipedia")])
def test_models_of_a_scale_have_about_as_many_parameters(scale: str, task: str) -> None:
    numbers = []
    for model in (*PARAMETERS, "tlstm_3d_cn"):
        config = compose([f"scale={scale}", f"task={task}", f"model={model}"]).config
        with torch.device("meta"):
            module = make_module(config, make_data(config))
        numbers.append(sum(parameter.numel() for parameter in module.network.parameters()))
    assert max(numbers) < 1.05 * min(numbers)


# Where the text comes from


def test_pythons_own_text_is_a_task() -> None:
    run = compose(["scale=smoke", "task=python_topics"])
    assert run.directory.name.startswith("python_topics-tlstm_3d_cn-L4")
    assert run.config.task.text == f"python-{platform.python_version()}"
    assert b'The "if" statement' in python_topics()
    other = compose([*run.overrides, "task.text=python-2.7.18"])
    assert other.identifier != run.identifier
    with pytest.raises(ValueError, match=r"task.text=python-2.7.18 is another text than the"):
        make_data(other.config).prepare_data()


def test_wikipedia_is_composed_without_asking_for_a_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(download, "reachable", lambda _: pytest.fail("a server was asked"))
    config = compose(["scale=smoke", "task=wikipedia"]).config
    assert (config.task.source, config.task.name) == ("wikipedia", "wikipedia")
    assert config.task.text == "sha256-2b49720ec4d78c3c"


@pytest.mark.parametrize("name", ["text", "text.gz", "text.zip"])
def test_a_file_is_a_text_however_it_is_packed(name: str, tmp_path: Path) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".zip": zipped}[Path(name).suffix]
    (tmp_path / name).write_bytes(pack(SMALL))
    run = compose(own_text(tmp_path / name, SMALL))
    data = make_data(run.config)
    assert bytes(data.text.alphabet[token] for token in data.text.tokens[1:]) == SMALL
    assert compose(own_text(tmp_path / name, b"other")).identifier != run.identifier


def own_text(file: Path, content: bytes) -> list[str]:
    """A command line that trains on a file."""
    text = f"sha256-{hashlib.sha256(content).hexdigest()[:16]}"
    return ["scale=smoke", "task=text_file", f"task.path={file}", f"task.text={text}"]


def test_where_the_file_is_decides_nothing(tmp_path: Path) -> None:
    runs = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        file = write_text(tmp_path / name, 9000)
        runs.append(compose([*own_text(file, file.read_bytes()), "model=slstm"]))
    small = ["task.timesteps=5", "task.batch_size=10"]
    assert runs[0].identifier == runs[1].identifier
    runs = [compose([*run.overrides, *small]) for run in runs]
    modules = [make_module(run.config, make_data(run.config)) for run in runs]
    assert modules[0].description == modules[1].description


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small text in the place of enwik8, and its beginning in the place of the sample."""
    whole, sample = (
        text._replace(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for text, content in ((ENWIK8, SMALL), (wikipedia.SAMPLE, BEGINNING))
    )
    monkeypatch.setattr(wikipedia, "ENWIK8", whole)
    monkeypatch.setattr(wikipedia, "PUBLISHED", {"wikipedia": whole, "wikipedia_sample": sample})


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(("name", "pack"), [("enwik8", bytes), ("enwik8.zip", zipped)])
def test_the_whole_file_is_wikipedia_wherever_it_is(name: str, pack: Any, tmp_path: Path) -> None:
    (tmp_path / "mine" / "enwik8").mkdir(parents=True)
    file = tmp_path / "mine" / "enwik8" / name
    file.write_bytes(pack(SMALL))
    for place in (f"task.path={file}", f"task.data_dir={tmp_path / 'mine'}"):
        config = compose(["scale=smoke", "task=wikipedia", "task.text=null", place]).config
        data = make_data(config)
        assert len(data.text.tokens) == len(SMALL) + 1


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("name", "content"),
    [("enwik8", SMALL), ("enwik8-first-4154000.gz", gzip.compress(BEGINNING))],
    ids=["whole", "sample"],
)
def test_the_sample_is_a_file_or_the_beginning_of_enwik8(
    name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "enwik8").mkdir()
    (tmp_path / "enwik8" / name).write_bytes(content)
    settings = ["task=wikipedia_sample", "task.text=null", f"task.data_dir={tmp_path}"]
    data = make_data(compose(["scale=smoke", *settings]).config)
    assert bytes(data.text.alphabet[token] for token in data.text.tokens[1:]) == BEGINNING
    assert data.input_size == 205


def test_the_sample_has_the_papers_network_and_sizes_that_fit() -> None:
    config = compose(["scale=paper", "task=wikipedia_sample"]).config
    whole = compose(["scale=paper", "task=wikipedia"]).config
    data = make_data(config)
    assert [len(part) for part in data.parts] == [3_738_600, 207_700, 207_700]
    assert config.training.samples_per_epoch == data.samples_per_pass
    assert config.training.max_samples == 50 * data.samples_per_pass
    assert config.training.patience == 5
    assert data.context / (len(data.parts[1]) / data.evaluation_streams) < 0.1
    assert (config.model, data.input_size) == (whole.model, 205)


@pytest.mark.skipif(not (DATA / "enwik8").is_dir(), reason="data/enwik8 is not there")
def test_the_sample_is_the_published_one() -> None:
    config = compose(["scale=paper", "task=wikipedia_sample", f"task.data_dir={DATA}"]).config
    data = make_data(config)
    data.prepare_data()
    assert len(data.text.alphabet) == 200
    assert data.render(data.text.tokens[1:11]) == "<mediawiki"
    assert data.token_name(204) == ""


BIG = """
import resource, sys, time
from pathlib import Path
from tlstm.training.config import compose
from tlstm.training.run import make_data, make_module
began = time.perf_counter()
settings = ["scale=paper", "task=text_file", "task.text=null", "model=slstm", "model.channels=8"]
config = compose([*settings, f"task.path={sys.argv[1]}"]).config
data = make_data(config)
data.prepare_data()
module = make_module(config, data)
batches = iter(data.train_dataloader())
for _ in range(3):
    module.loss(next(batches)).backward()
assert [len(part) for part in data.parts] == [90_000_000, 5_000_000, 5_000_000]
assert data.input_size == 205
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_a_text_of_enwik8s_size_takes_little(tmp_path: Path) -> None:
    text = np.random.default_rng(0).integers(0, 205, 10**8, dtype=np.uint8)
    (tmp_path / "text").write_bytes(text.tobytes())
    command = [sys.executable, "-c", BIG, str(tmp_path / "text")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    seconds, gibibytes = map(float, ran.stdout.split())
    assert seconds < 20
    assert gibibytes < 2


# What is refused


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task.path={}/nowhere"], "{}/nowhere: there is no such file to train on"),
        (["task.path={}"], "{}: there is no such file to train on"),
        (["task.path={}/empty"], "{}/empty is empty"),
        (["task.path={}/wide"], "{}/wide is no plain text: it has bytes of zero"),
        (["task.path={}/cut.gz"], "{}/cut.gz is damaged or not whole"),
        (["task.path=3"], "3: there is no such file to train on"),
        (["task=wikipedia", "task.data_dir={}/nowhere"], "{}/nowhere/enwik8/enwik8.zip is missing"),
        (
            ["task=wikipedia", "task.data_dir={}"],
            "{}/enwik8/enwik8.zip is missing, and there is no network",
        ),
        (["task=wikipedia"], "there is no network to download"),
        (["task=wikipedia_sample"], "there is no network to download"),
        (["task=wikipedia_sample", "task.path={}/text"], "is damaged or not enwik8-first-4154000"),
        (["task=wikipedia", "task.path={}/text"], "{}/text is damaged or not enwik8"),
        (["task.path=null"], "task=text_file needs task.path"),
        (["task=python_topics", "task.path={}/text"], "is no python_topics"),
        (["task.source=enwik9"], "one of wikipedia, wikipedia_sample, python_topics"),
        (["task.path={}/text", "task.text=sha256-0"], "task.text=sha256-0 is another text"),
        (
            ["task.path={}/text", "training.batch_size=24", "task.timesteps=20"],
            "has 360 characters for training, and batch_size=24 of 20 characters need 480",
        ),
        (
            ["task.path={}/text", "task.evaluation_streams=5"],
            "has 20 characters for validation, and evaluation_streams=5 of 5 characters need 25",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_sentence_says_what_is_wrong(
    overrides: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_text(tmp_path)
    (tmp_path / "empty").touch()
    (tmp_path / "wide").write_text("a text " * 200, encoding="utf-16")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(SMALL)[:-20])
    before = {*tmp_path.rglob("*")}
    filled = [override.format(tmp_path) for override in overrides]
    line = refused(lambda: run_command(tiny(tmp_path / "runs", *filled)), capsys)
    assert said.format(tmp_path) in line
    assert {*tmp_path.rglob("*")} == before


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_text(tmp_path)
    file.chmod(0)
    line = refused(lambda: run_command(tiny(tmp_path / "runs", f"task.path={file}")), capsys)
    assert line == f"error: {file}: Permission denied"


# Runs


def test_a_run_says_what_it_was_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(tiny(tmp_path / "runs", f"task.path={write_text(tmp_path)}"))
    said = capsys.readouterr().out
    assert "\ntext_file, 2D tLSTM, L=3: " in said
    assert "bits per character on the test split" in said
    record = record_of(tmp_path / "runs")
    assert record.task == "text_file"
    assert compose(record.overrides).identifier == record.identifier
    assert record.outcome == "budget spent"


def unigram_entropy(text: Sequence[Any]) -> float:
    """Bits for each item, of a model that knows how often each one occurs, and no more."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)


def test_a_small_model_learns_more_than_how_often_characters_occur(tmp_path: Path) -> None:
    """It learns the words of a text in random order."""
    text = write_text(tmp_path, 8000)
    record = train_here(
        tiny(
            tmp_path,
            f"task.path={text}",
            "model=tlstm_2d",
            "model.depth=2",
            "model.channels=16",
            "task.timesteps=20",
            "training.batch_size=8",
            "training.samples_per_epoch=800",
            "training.max_samples=2400",
            "training.learning_rate=0.02",
        )
    )
    source = unigram_entropy(WORDS) * len(WORDS) / len(" ".join([*WORDS, ""]))  # of each character
    assert 0.9 * source < record.test["bits_per_character"]  # the test split is short
    assert record.test["bits_per_character"] < unigram_entropy(text.read_bytes()) - 1
