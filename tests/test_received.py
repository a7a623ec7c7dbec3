"""Files of somebody else's: whatever they hold, they are refused at once, and nothing leaks."""

import itertools
import os
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from commands import tiny
from tlstm.records.schema import read_record
from tlstm.training.checkpoints import read_checkpoint
from tlstm.training.config import compose
from tlstm.training.trained_run import read_config, read_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The directory of a run that has written its configuration."""
    directory = tmp_path / "run"
    directory.mkdir()
    OmegaConf.save(compose(tiny(tmp_path)).config, directory / "config.yaml")
    return directory


def test_what_a_run_wrote_is_read(run: Path, tmp_path: Path) -> None:
    assert read_config(run) == compose(tiny(tmp_path)).config


BOMB = "a: &a [x, x]\n" + "\n".join(
    f"{name}: &{name} [*{last}, *{last}]" for last, name in itertools.pairwise("abcdefghij")
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("surprise: ${oc.env:SECRET}", "a reference"),
        ("surprise: ${seed}", "a reference"),
        ('surprise: "\\x24{oc.env:SECRET}"', "a reference"),
        ("surprise: [{a: 'x ${oc.env:SECRET}'}]", "a reference"),
        ("? ${oc.env:SECRET}\n: 1", "a reference"),
        (BOMB, "a reference"),
        ("surprise: " + "[" * 2000 + "]" * 2000, "nested more than 20 deep"),
        ("\n".join(" " * n + "a:" for n in range(400)), "nested"),
        ("surprise: " + "{a: " * 2000, "nested"),
        ("surprise: " + "x" * 2**17, "has more than 131,072 bytes"),
        ("surprise: " + "9" * 5000, "is no configuration of a run, or it is damaged"),
        ("surprise: !!python/name:os.system", "is no configuration of a run"),
        ("surprise: !!binary aGVsbG8=\n--- second", "is no configuration of a run"),
    ],
)
def test_a_configuration_holds_values_only(
    text: str, said: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "a-token")
    with (run / "config.yaml").open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")
    with pytest.raises(ValueError, match=said) as caught:
        read_config(run)
    assert str(run / "config.yaml") in str(caught.value)
    assert "a-token" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.core.kernel_size", 10**9),
        ("model.core.channels", 10**9),
        ("task.alphabet", 10**15),
        ("initialization", "x"),
        ("initialization.hidden_range", -1),
        ("initialization.scale", None),
        ("trainer", []),
        ("training.max_samples", {}),
        ("model.core._partial_", True),
        ("model.core._args_", [1]),
        ("task.symbols", 10**6),
    ],
)
def test_values_that_no_run_has_are_refused(key: str, value: object, run: Path) -> None:
    config = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(config, key, value, merge=False)
    OmegaConf.save(config, run / "config.yaml")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "best.ckpt").write_bytes(bytes(100_000))  # which would be refused, too
    with pytest.raises(ValueError, match=r".") as caught:
        read_run(run)
    assert "best.ckpt" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        ["model=tlstm_3d_cn", "model.channels=20_000"],
        ["model=tlstm_3d_cn", "model.depth=900"],
        ["model=slstm", "model.depth=1000", "model.channels=10_000"],
        ["model=rhn", "model.depth=1000"],
        ["task=memorization", "task.symbols=10_000", "task.alphabet=100_000"],
        ["task=addition", "task.digits=10_000"],
    ],
    ids=str,
)
def test_a_network_larger_than_its_weights_is_refused_at_once(
    settings: list[str], run: Path, tmp_path: Path
) -> None:
    """Sizes that a run may have, and a file that does not have them."""
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "best.ckpt").write_bytes(b"x" * 1000)
    base = [text for text in tiny(tmp_path) if not text.startswith("task")]
    OmegaConf.save(compose([*base, *settings]).config, run / "config.yaml")
    began = time.process_time()
    with pytest.raises(ValueError, match="too small for a network of"):
        read_run(run)
    assert time.process_time() - began < 5


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_pipe, link_to_zeros, Path.mkdir])
@pytest.mark.parametrize("read", [read_record, read_checkpoint])
def test_what_is_no_file_is_not_waited_for(make, read, tmp_path: Path) -> None:
    make(tmp_path / "given")
    with pytest.raises(ValueError, match=f"{tmp_path / 'given'} is no regular file"):
        read(tmp_path / "given")


def test_a_run_without_a_regular_configuration_is_none(run: Path) -> None:
    for make in (make_pipe, link_to_zeros):
        (run / "config.yaml").unlink()
        make(run / "config.yaml")
        with pytest.raises(ValueError, match=f"{run} is no directory of a run"):
            read_config(run)
