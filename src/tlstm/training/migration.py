"""Records and run directories of format 1, brought to format 2.

Settings have got other names, and the configuration is composed from what `conf/` says now: a run
keeps its result and gets the identifier that its configuration has now. It is composed from the
record's own command line, and every setting that a record holds is compared.
"""

import io
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tlstm.records.schema import Record, parse_record, write_record
from tlstm.records.store import append
from tlstm.training.checkpoints import describe, read_checkpoint
from tlstm.training.config import Run, compose, decisive, leaves, plain
from tlstm.training.received import read_config_file
from tlstm.training.settings import CONFIGURATIONS
from tlstm.utils import replace_file, resolved

DONE = "done"  # of what was brought along; of what was not, why
RENAMED = {
    "training.warm_up": "training.warmup_samples",
    "task.most_zeros": "task.max_zero_fraction",
    "task.fewest_digits": "task.min_digits",
    "trainer.capture": "trainer.cuda_graph",
    "trainer.steps_at_a_time": "trainer.steps_per_launch",
    "training.initial_scale": "initialization.scale",
}

# What runs were before these settings could be set
LACKED = {
    "training.loss": "answer",
    "training.gradient_clip": 0,
    "training.warmup_samples": 0,
    "training.patience": 0,
    "initialization.scale": 1,
    "initialization.norm_gain": 1,
    "task.sha256": None,
    "task.alignment": "left",
    "task.min_digits": 0,
    "task.max_zero_fraction": 0,
    "trainer.float32_matmul_precision": "high",
}

DROPPED = (
    *("training.initial_", "training.padding"),
    *("task.source", "task.text", "task.label", "scale."),
)
# Of files that are no records or no configurations, or of no run of today
FAULTS = (ValueError, KeyError, TypeError, AttributeError, YAMLError, OmegaConfBaseException)
GROUPS = ("experiment", "task", "model", "scale")
EXPERIMENTS = {"readings": "choices"}
PERMUTATION_SEED = 92916  # which runs on images in their own order have too, and do not use
NOT_OF_DATA = ("_target_", "batch_size", "samples_per_epoch", "seed")
COPIED = ("model.", "training.", "trainer.", "logger.", "seed", "resume", "output_dir")
WAYS = {  # to begin, by hidden_range, input_range and bias_range
    (None, None, None): "torch7",
    (0.08, "normal", 0): "embedding",
    (None, "normal", None): "normal_input",
    (None, None, 0): "zero_bias",
    (None, "normal", 0): "normal_input_zero_bias",
}


def migrate_all(runs: Path, results: Path) -> tuple[int, list[str]]:
    """Bring the stores of `results` and the run directories below `runs` to format 2.

    Returns:
        The number of records and directories that were of format 1, and a sentence for each that
        could not be brought along and was left as it is.

    Raises:
        OSError: a file could not be read or written.
    """
    steps = [
        *((_migrate_store, path) for path in sorted(results.glob("*/records.jsonl"))),
        *((_migrate_picture, path) for path in sorted(results.glob("fig6/*.json"))),
        *((_migrate_directory, path.parent) for path in sorted(runs.glob("*/*/config.yaml"))),
    ]
    said: list[str] = []
    for step, path in steps:
        try:
            said += step(path)
        except FAULTS as error:
            said.append(f"{path}: {error}")
    return said.count(DONE), [problem for problem in said if problem != DONE]


def _migrate_store(store: Path) -> list[str]:
    """Bring a store to format 2; what cannot be brought along goes to a file in its directory."""
    file, aside = resolved(store), store.with_name("not-migrated.jsonl")
    with FileLock(file.with_name(f"{file.name}.lock")):
        lines = [line for line in store.read_bytes().splitlines() if line.strip()]
        found = [_migrate_line(line, json.loads(line)) for line in lines]
        left = [line for line, said in found if said not in ("", DONE)]
        if left:
            before = aside.read_bytes() if aside.exists() else b""
            replace_file(aside, before + b"".join(line + b"\n" for line in left))
        if any(said for _, said in found):
            _write_store(store, [line for line, said in found if said in ("", DONE)])
    return [
        said if said == DONE else f"a record of {store}, which is in {aside.name} now: {said}"
        for _, said in found
        if said
    ]


def _migrate_line(line: bytes, record: dict[str, Any]) -> tuple[bytes, str]:
    """Return a record's new line and `DONE`; its line and why not, nothing if it is of today."""
    if not _is_old(record):
        return line, ""
    try:
        return migrate_record(record).model_dump_json().encode(), DONE
    except FAULTS as error:
        return line, str(error)


def _write_store(store: Path, lines: Sequence[bytes]) -> None:
    """Replace a store, in the directory that its experiment has now."""
    name = store.parent.name
    target = store.parent.with_name(EXPERIMENTS.get(name, name)) / store.name
    if target == store or not target.exists():
        replace_file(target, b"".join(line + b"\n" for line in lines))
    else:
        append((parse_record(line, str(store)) for line in lines), target.parents[1])
    if target != store:
        store.unlink()


def _migrate_picture(file: Path) -> list[str]:
    """Bring a layer's memory cells, which hold the record of their run, to format 2."""
    content = json.loads(file.read_bytes())
    if not _is_old(content.get("record", {})):
        return []
    content["record"] = migrate_record(content["record"]).model_dump(mode="json")
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    replace_file(file, f"{text}\n".encode())
    return [DONE]


def _migrate_directory(directory: Path) -> list[str]:
    """Bring a run's record, configuration, checkpoints and directory name to format 2."""
    config = read_config_file(directory / "config.yaml")
    if not isinstance(config, DictConfig) or "initialization" in config:
        return []
    file, old = directory / "record.json", plain(config)
    record = json.loads(file.read_bytes()) if file.exists() else None
    run = compose_again(old, record["overrides"] if record else (), _python(record))
    for path in directory.glob("checkpoints/*.ckpt"):
        checkpoint, content = read_checkpoint(path), io.BytesIO()
        checkpoint["description"] = describe(run.config, checkpoint["description"]["symbols"])
        torch.save(checkpoint, content)
        replace_file(path, content.getvalue())
    if record:
        write_record(_with_run(record, run), file)
    replace_file(directory / "config.yaml", OmegaConf.to_yaml(run.config).encode())
    target = directory.parents[1] / run.config.experiment.name / run.directory.name
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        directory.rename(target)
    return [DONE]


def _is_old(record: Mapping[str, Any]) -> bool:
    return record.get("format") == 1 and "config" in record and "overrides" in record


def _python(record: Mapping[str, Any] | None) -> str:
    """Return the version of Python that a run had; an unfinished one goes on with this one."""
    return str(record["versions"]["python"]) if record else platform.python_version()


def migrate_record(old: Mapping[str, Any]) -> Record:
    """Return a record of format 1 in format 2.

    Raises:
        ValueError: `conf/` has no configuration with the settings that it holds.
    """
    return _with_run(old, compose_again(old["config"], old["overrides"], _python(old)))


def _with_run(old: Mapping[str, Any], run: Run) -> Record:
    new = {
        "format": 2,
        "identifier": run.identifier,
        "former_identifiers": [old["identifier"]],
        "experiment": run.config.experiment.name,
        "overrides": run.overrides,
        "config": plain(run.config),
    }
    return Record.model_validate_json(json.dumps({**old, **new}))


def compose_again(old: Mapping[str, Any], overrides: Iterable[str], python: str) -> Run:
    """Return the run that has the settings of a configuration of format 1.

    Args:
        old: the configuration.
        overrides: the command line that it had, which the new one is like.
        python: version that the run had.

    Raises:
        ValueError: there is no such run; the message names the settings.
    """
    wanted = settings_of(old, python)
    groups = {group: old[group]["name"] for group in GROUPS}
    groups["experiment"] = EXPERIMENTS.get(groups["experiment"], groups["experiment"])
    if (CONFIGURATIONS / "task" / f"{wanted['task.name']}.yaml").exists():
        groups["task"] = wanted["task.name"]  # a stand-in, which is a task now
    command = {group: groups[group] for group in ("experiment", "task", "model")}
    for text in overrides:
        key, _, value = text.partition("=")
        if not key.startswith(DROPPED):
            command[RENAMED.get(key, key)] = groups.get(key, value)
    command.setdefault("scale", groups["scale"])
    run = _composed(command)
    begins = tuple(wanted[f"initialization.{part}_range"] for part in ("hidden", "input", "bias"))
    if WAYS.get(begins, run.config.initialization.name) != run.config.initialization.name:
        command["initialization"] = WAYS[begins]
        run = _composed(command)
    wanted = {key: LACKED[key] for key in LACKED.keys() & decisive(run.config).keys()} | wanted
    different = _differences(wanted, run)
    if different:
        run = _composed(command | different)
    left = _differences(wanted, run).keys() | (decisive(run.config).keys() - wanted.keys())
    if left:
        raise ValueError(f"no configuration has its {', '.join(sorted(left))}")
    return run


def _composed(command: Mapping[str, Any]) -> Run:
    texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in command.items()}
    return compose([f"{key}={text}" for key, text in texts.items()])


def _differences(wanted: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """Return the wanted settings that a run has otherwise."""
    found = leaves(run.config)
    return {key: value for key, value in wanted.items() if key not in found or found[key] != value}


def settings_of(old: Mapping[str, Any], python: str) -> dict[str, Any]:
    """Return the settings of a configuration of format 1 by their names in format 2."""
    task, training = old["task"], old["training"]
    data = {key: value for key, value in task["data"].items() if key not in NOT_OF_DATA}
    if data.get("source") == "python_topics":
        data["text"] = f"python-{python}"
    if "permuted" in data:  # images, whose tasks have names of their own now
        if data["permuted"] and "sha256" not in data:
            raise ValueError("the order of its permuted pixels is no longer drawn; train it again")
        order = data["permutation_seed"] if data["permuted"] else PERMUTATION_SEED
        data = data | {"permutation_seed": order}
        data.pop("source", None)
    kept = {f"task.{key}": value for key, value in data.items()} | {
        key: value
        for key, value in leaves(OmegaConf.create(dict(old))).items()
        if key.startswith(COPIED)
        and (key in RENAMED or not key.startswith(("training.initial_", "training.padding")))
        and key not in ("model.label", "model.core._target_")
    }
    reads, biases = training.get("initial_input"), training.get("initial_bias")
    return {RENAMED.get(key, key): value for key, value in kept.items()} | {
        "task.name": task.get("label", task["name"]),
        "initialization.hidden_range": training.get("initial_range") or None,
        "initialization.input_range": "normal" if reads == "normal" else None,
        "initialization.bias_range": 0 if biases == "zero" else None,
    }
