"""A run tested again: the recorded metrics; whatever is wrong refused, and nothing executed."""

import contextlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import (
    files_below,
    forbid_network,
    load,
    measure_quickly,
    record_of,
    refused,
    run_directory,
    tiny,
    train_here,
)
from tlstm import evaluate
from tlstm.records.schema import read_record, write_record
from tlstm.train import run_command
from tlstm.training.checkpoints import read_checkpoint
from tlstm.training.trained_run import read_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        measure_quickly(patch)
        return leave(tmp_path_factory.mktemp("runs"), "model=tlstm_3d_cn")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of that directory, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def leave(output_dir: Path, *more: str) -> Path:
    train_here(tiny(output_dir, *more))
    return run_directory(output_dir)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    return refused(lambda: evaluate.main([str(argument) for argument in arguments]), capsys)


# The same again


def test_the_metrics_are_the_recorded_ones(trained: Path) -> None:
    before = files_below(trained)
    assert evaluate.evaluate(read_run(trained)) == read_record(trained / "record.json").test
    assert files_below(trained) == before


def test_also_of_other_models_and_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure_quickly(monkeypatch)
    sizes = ("task.validation_samples=20", "task.test_samples=20")
    directory = leave_any(tmp_path, "task=digits", "model=slstm", *sizes)
    assert evaluate.evaluate(read_run(directory)) == record_of(tmp_path).test


def leave_any(output_dir: Path, *more: str) -> Path:
    """A tiny run of any task."""
    own = ("task=", "task.symbols=", "task.alphabet=")
    train_here([text for text in tiny(output_dir) if not text.startswith(own)] + [*more])
    return run_directory(output_dir)


def test_the_command_tells_the_metrics_beside_the_recorded_ones(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(trained)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "memorization, 3D tLSTM+CN, L=2, seed 0, smoke scale" in out
    for name, value in read_record(trained / "record.json").test.items():
        assert f"test {name} {value:.6g}, recorded: {value:.6g}" in out


def test_other_metrics_than_the_recorded_ones_are_told_by_the_exit_code(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = read_record(run / "record.json")
    write_record(
        record.model_copy(update={"test": {**record.test, "loss": 0.5}}), run / "record.json"
    )
    assert evaluate.main([str(run)]) == 1
    assert "recorded: 0.5" in capsys.readouterr().out


def test_the_device_may_be_chosen(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(run), "--device", "cpu"]) == 0
    if not torch.cuda.is_available():
        assert "No supported gpu backend" in refusal(capsys, run, "--device", "cuda")
    assert "choose from cpu, cuda" in refusal(capsys, run, "--device", "tpu").replace("'", "")


def test_the_best_checkpoint_is_tested_and_not_the_last(run: Path) -> None:
    (run / "checkpoints" / "last.ckpt").unlink()
    assert evaluate.main([str(run)]) == 0


def test_a_run_that_is_not_finished_can_be_tested(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = read_record(run / "record.json").test
    (run / "record.json").unlink()
    assert evaluate.main([str(run)]) == 0
    said = capsys.readouterr().out
    assert f"test loss {test['loss']:.6g}\n" in said
    assert "not finished" in said


# Whatever is wrong


def test_a_path_that_is_none_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        assert f"{path} is no directory of a run" in refusal(capsys, path)


def test_a_run_without_a_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "checkpoints" / "best.ckpt").unlink()
    assert f"{run / 'checkpoints' / 'best.ckpt'}: No such file" in refusal(capsys, run)


def test_a_checkpoint_of_another_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure_quickly(monkeypatch)
    other = leave(tmp_path / "other", "model=tlstm_2d")
    shutil.copy(other / "checkpoints" / "best.ckpt", run / "checkpoints" / "best.ckpt")
    assert "a checkpoint of another model: tlstm_2d, L=2" in refusal(capsys, run)


def test_a_checkpoint_with_other_weights_than_it_says(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = load(run, "best")
    content["state_dict"]["network.head.bias"] = torch.zeros(3)
    torch.save(content, run / "checkpoints" / "best.ckpt")
    assert "is no checkpoint of tlstm.train, or it is damaged" in refusal(capsys, run)


def test_a_damaged_record(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "record.json").write_text("{")
    assert f"{run / 'record.json'} is not a valid record" in refusal(capsys, run)


@pytest.mark.parametrize("text", ["", "[1]", "a: [", "a: 1", "\0", "task: {data: 1}"])
def test_a_damaged_configuration(text: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.yaml").write_text(text)
    assert str(run) in refusal(capsys, run)


def test_data_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure_quickly(monkeypatch)
    directory = leave_any(tmp_path / "runs", "task=digits")
    config = directory / "config.yaml"
    config.write_text(config.read_text().replace("DigitsDataModule", "MNISTDataModule"))
    forbid_network(monkeypatch)
    line = refusal(capsys, directory, "--data", tmp_path / "data")
    assert str(tmp_path / "data") in line


# Nothing is executed


class Malicious:
    """What a pickle executes where it is let."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.path),)


def in_torchs_format(checkpoint: dict[str, Any], content: Malicious, path: Path) -> None:
    torch.save({**checkpoint, "hidden": content}, path)


def in_torchs_old_format(checkpoint: dict[str, Any], content: Malicious, path: Path) -> None:
    torch.save({**checkpoint, "hidden": content}, path, _use_new_zipfile_serialization=False)


def as_a_plain_pickle(checkpoint: dict[str, Any], content: Malicious, path: Path) -> None:
    path.write_bytes(pickle.dumps([content, bytes(10_000)], protocol=2))


@pytest.fixture(params=[in_torchs_format, in_torchs_old_format, as_a_plain_pickle])
def malicious(request: pytest.FixtureRequest, run: Path, tmp_path: Path) -> Iterator[Path]:
    """A run whose checkpoints would make a directory."""
    for name in ("best", "last"):
        path = run / "checkpoints" / f"{name}.ckpt"
        request.param(load(run, name), Malicious(tmp_path / "executed"), path)
    yield run
    assert not (tmp_path / "executed").exists()
    with contextlib.suppress(RuntimeError):  # which it would have been
        torch.load(path, weights_only=False)
    assert (tmp_path / "executed").exists()


def test_a_malicious_checkpoint_is_refused(
    malicious: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is no checkpoint of tlstm.train, or it is damaged" in refusal(capsys, malicious)


def test_nobody_goes_on_from_a_malicious_checkpoint(
    malicious: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = malicious / "checkpoints" / "last.ckpt"
    with pytest.raises(SystemExit) as ended:
        run_command(tiny(tmp_path / "new", "model=tlstm_3d_cn", f"resume={checkpoint}"))
    assert ended.value.code == 2
    assert f"{checkpoint} is no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "written"),
    [
        ("model", {"core": {"_target_": "os.mkdir", "path": "executed"}}),
        (
            "model",
            {"core": {"_target_": "tlstm.training.checkpoints.Path.touch", "self": "executed"}},
        ),
        ("task", {"data_module": "tlstm.tasks.download.tempfile.mkdtemp"}),
        ("task", {"data_module": "tlstm.layers.tensorized.TensorizedLSTM"}),
        ("task", {"data_module": {"_target_": "os.mkdir", "path": "executed"}}),
        ("task", {"data_module": [{"_target_": "os.mkdir", "path": "executed"}]}),
    ],
)
def test_a_malicious_configuration_is_refused(
    part: str,
    written: dict[str, Any],
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = yaml.safe_load((run / "config.yaml").read_text())
    (key,) = written
    content[part] |= written
    content["malicious"] = {"_target_": "os.mkdir", "path": "executed"}
    (run / "config.yaml").write_text(json.dumps(content))  # which is YAML, too
    monkeypatch.chdir(tmp_path)
    assert f"{part}.{key} must be made of one" in refusal(capsys, run)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_configuration_is_plain_yaml(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tag = f"seed: !!python/object/apply:os.mkdir ['{tmp_path / 'executed'}']"
    (run / "config.yaml").write_text(tag)
    assert "is no configuration of a run, or it is damaged" in refusal(capsys, run)
    assert not (tmp_path / "executed").exists()


@settings(max_examples=100)
@given(data=st.data())
def test_a_checkpoint_with_any_damage_is_read_or_refused(
    trained: Path, data: st.DataObject
) -> None:
    content = bytearray((trained / "checkpoints" / "best.ckpt").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
    length = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path = trained.parent / "damaged.ckpt"
    path.write_bytes(content[:length])
    with contextlib.suppress(ValueError):
        assert "state_dict" in read_checkpoint(path)
