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
from tlstm.training.migration import compose_again
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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
    store.write_text(f"{json.dumps(other)}\n{new.model_dump_json()}\n")
    assert results.main(arguments) == 1
    assert "a record of " in capsys.readouterr().err
    assert load(stores, "fig4") == [new]
    assert (store.parent / "not-migrated.jsonl").read_text() == f"{json.dumps(other)}\n"


def of_digits(permuted: bool, **data: object) -> dict:
    """The configuration of a run of format 1 on the digits, as the first ones were."""
    images = {"source": "digits", "permuted": permuted, "permutation_seed": 0}
    config = OmegaConf.to_container(compose(["scale=smoke", "task=digits"]).config, resolve=True)
    held_out = {key: config["task"][key] for key in ("validation_samples", "test_samples")}
    name = {"name": "mnist", "label": "permuted_digits" if permuted else "digits"}
    training = config["training"] | {"initial_range": 0.0, "initial_bias": "uniform"}
    training["warm_up"] = training.pop("warmup_samples")
    trainer = config["trainer"] | {"capture": "auto", "steps_at_a_time": "auto"}
    del config["initialization"], trainer["cuda_graph"], trainer["steps_per_launch"]
    task = name | {"data": images | held_out | data}
    return config | {"task": task, "training": training, "trainer": trainer}


def test_digits_are_the_task_of_their_name() -> None:
    """Where they are in their own order, the seed of another order decides nothing."""
    run = compose_again(of_digits(permuted=False), ["task.source=digits", "seed=0"], "3.11.7")
    assert run.identifier == compose(["scale=smoke", "task=digits"]).identifier


def test_pixels_in_an_order_that_is_no_longer_drawn_are_refused() -> None:
    with pytest.raises(ValueError, match="train it again"):
        compose_again(of_digits(permuted=True), [], "3.11.7")


def test_a_renamed_experiment_is_brought_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_quickly(monkeypatch)
    runs, stores = tmp_path / "runs", tmp_path / "results"
    given = tiny(runs, "experiment=choices")
    new = train_here(given)
    directory = to_format_1(compose(given).directory)
    for file in (directory / "record.json", directory / "config.yaml"):
        file.write_text(file.read_text().replace("choices", "readings"))
    (runs / "choices").rename(runs / "readings")
    line = (runs / "readings" / directory.name / "record.json").read_text()
    store = stores / "readings" / "records.jsonl"
    store.parent.mkdir(parents=True)
    store.write_text(f"{line}\n")
    assert results.main(["migrate", "--runs", str(runs), "--results", str(stores)]) == 0
    assert compose(given).directory.is_dir()
    assert not store.exists()
    (record,) = load(stores, "choices")
    assert (record.experiment, record.identifier) == ("choices", new.identifier)
