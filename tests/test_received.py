"""Files of somebody else's: whatever they hold, they are refused at once, and nothing leaks."""

import itertools
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
from omegaconf import OmegaConf
from safetensors import safe_open

from commands import tiny
from tlstm import TensorizedLSTM
from tlstm.layers.serialization import read_layer
from tlstm.records.schema import read_record
from tlstm.training.checkpoints import read_checkpoint
from tlstm.training.config import compose
from tlstm.training.trained_run import read_config


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


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_pipe, link_to_zeros, Path.mkdir])
@pytest.mark.parametrize("read", [read_record, read_checkpoint, read_layer])
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


@pytest.mark.parametrize("changed", [{"rank": 10**9}, {"kernel_size": 10**9}, {"channels": 10**9}])
def test_a_layer_file_of_any_size_is_refused_at_once(changed: dict, tmp_path: Path) -> None:
    path = tmp_path / "layer.safetensors"
    TensorizedLSTM(3, 4, tensor_size=2).to_file(path)
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metadata["arguments"] = json.dumps(json.loads(metadata["arguments"]) | changed)
    path.write_bytes(safetensors.torch.save(tensors, metadata))
    with pytest.raises(ValueError, match=f"{path} does not make a TensorizedLSTM"):
        TensorizedLSTM.from_file(path)
