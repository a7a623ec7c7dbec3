"""Records and run directories of format 1, brought to format 2."""

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from commands import measure_quickly, run_directory, tiny, train_here
from tlstm import results
from tlstm.records.schema import read_record
from tlstm.records.store import load
from tlstm.training.config import compose
from tlstm.training.trained_run import read_run

OLD = "0" * 16


def to_format_1(directory: Path) -> Path:
    """Turn a finished run of memorization with its default initialization into one of format 1."""
    config = OmegaConf.to_container(OmegaConf.load(directory / "config.yaml"))
    task, training, trainer = config["task"], config["training"], config["trainer"]
    task["data"] = {"_target_": task.pop("data_module"), "batch_size": 15, "seed": 0} | {
        key: task[key] for key in ("symbols", "alphabet", "validation_samples", "test_samples")
    }
    training["warm_up"] = training.pop("warmup_samples")
    training |= {"initial_range": 0.08, "initial_input": "normal", "initial_bias": "zero"}
    for key in ("loss", "patience"):  # which the first runs lacked
        del training[key]
    trainer["capture"], trainer["steps_at_a_time"] = trainer.pop("cuda_graph"), 1
    del config["initialization"], trainer["steps_per_launch"]
    (directory / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    file = directory / "record.json"
    record = json.loads(file.read_text()) | {"format": 1, "identifier": OLD, "config": config}
    del record["former_identifiers"]
    given = {"training.warmup_samples=15": "training.warm_up=15"}
    record["overrides"] = [given.get(text, text) for text in record["overrides"]]
    file.write_text(json.dumps(record))
    for path in directory.glob("checkpoints/*.ckpt"):
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["description"]["settings"] = {"training.warm_up": 15}
        torch.save(checkpoint, path)
    return directory.rename(directory.with_name(f"memorization-{OLD[:8]}"))


def test_a_finished_run_is_brought_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure_quickly(monkeypatch)
    runs, stores = tmp_path / "runs", tmp_path / "results"
    given = tiny(runs, "training.warmup_samples=15", "experiment=fig4")
    new = train_here(given)
    old = to_format_1(compose(given).directory)
    weights = torch.load(old / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]

    assert results.main(["collect", "--runs", str(runs), "--results", str(stores)]) == 1
    assert "`python -m tlstm.results migrate` brings it to format 2" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"results migrate --runs \S+` brings it to format 2"):
        read_run(old)

    for _ in range(2):  # the second time there is nothing left to do
        assert results.main(["migrate", "--runs", str(runs), "--results", str(stores)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{count} records and run directories brought to the format of today" for count in (1, 0)
    ]
    assert run_directory(runs) == compose(given).directory
    record = read_record(run_directory(runs) / "record.json")
    assert record.identifier == new.identifier == compose(record.overrides).identifier
    assert (record.former_identifiers, record.curve) == ([OLD], new.curve)
    kept = read_run(run_directory(runs)).module.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in weights.items())


def test_a_store_is_brought_along_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of its records has settings that no configuration has: none is lost."""
    measure_quickly(monkeypatch)
    runs, stores = tmp_path / "runs", tmp_path / "results"
    given = tiny(runs, "experiment=fig4")
    new = train_here(given)
    line = (to_format_1(compose(given).directory) / "record.json").read_text()
    store = stores / "fig4" / "records.jsonl"
    store.parent.mkdir(parents=True)
    store.write_text(f"{line}\n{new.model_dump_json()}\n")
    arguments = ["migrate", "--runs", str(tmp_path / "none"), "--results", str(stores)]
    assert results.main(arguments) == 0
    assert [record.former_identifiers for record in load(stores, "fig4")] == [[OLD], []]

    other = json.loads(line)
    other["config"]["training"]["momentum"] = 0.9
    unknown = f"{json.dumps(other)}\n{new.model_dump_json()}\n"
    store.write_text(unknown)
    assert results.main(arguments) == 1
    assert store.read_text() == unknown
