"""One resolved configuration from the files of conf/ and a command line.

Only `train` and `sweep` know Hydra, and they know it through this file.
"""

import copy
import difflib
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tlstm.ops import geometry
from tlstm.records.models import paper_name
from tlstm.training.schema import check_classes, check_leaves, check_values
from tlstm.training.settings import CONFIGURATIONS as CONFIGURATIONS  # which others import here
from tlstm.training.settings import OF_SWEEPS

# What decides the result of a run is below these
DECISIVE = (
    "seed",
    "task",
    "model",
    "initialization",
    "sampling",
    "training",
    "trainer.precision",
    "trainer.float32_matmul_precision",
)

# Settings whose text is taken as it is, by no grammar: people's paths and names have any sign
PATHS = ("output_dir", "resume", "task.data_dir", "task.path")
TEXTS = (*PATHS, "model.label", "logger.project")

MISSING = "???"  # no value, as OmegaConf means it

# What W&B's server hands back beside the settings: what it and the run put into its configuration
NO_SETTINGS = ("label", "depth", "channels")

# Settings of a task that decide nothing by themselves: how its data are read, and what the model
# and the training take from it
NOT_OF_DATA = ("data_module", "data_dir", "path", "channels", "sizes", "forget_bias")


def of_task(task: str, values: Mapping[str, Any], otherwise: Any) -> Any:
    """Return the value that a model has for a task, or its usual one."""
    return values.get(task, otherwise)


OmegaConf.register_new_resolver("tensor_size", geometry.tensor_size, replace=True)
OmegaConf.register_new_resolver("paper_name", paper_name, replace=True)
OmegaConf.register_new_resolver("of_task", of_task, replace=True)
OmegaConf.register_new_resolver(
    "visible_gpus", lambda otherwise: torch.cuda.device_count() or otherwise, replace=True
)


class Run(NamedTuple):
    """One run before it is set up.

    Attributes:
        config: the whole configuration, resolved.
        overrides: the command line that gives it.
        identifier: 16 hexadecimal digits that stand for all that decides the result.
        directory: where its checkpoints, logs and record go.
    """

    config: DictConfig
    overrides: list[str]
    identifier: str
    directory: Path


def compose(overrides: Sequence[str]) -> Run:
    """Return the run that a command line describes.

    Args:
        overrides: Hydra's `key=value`, such as `model=tlstm_2d` and `model.depth=7`.

    Raises:
        ValueError: a key or a choice is unknown, or a value cannot be; the message names it
            and what it may be.
    """
    echoes = [text for text in overrides if _is_echo(text)]
    overrides = with_scale([text for text in overrides if text not in echoes])
    settings = [_parse(text) for text in overrides]
    groups = [setting.text for setting in settings if _is_group(setting.key)]
    try:
        config = copy.deepcopy(_compose_groups(*groups))
        for key, value, _ in settings:
            if not _is_group(key):
                _check_key(OmegaConf.to_container(config, resolve=False), key)
                OmegaConf.update(config, key, value)
        check_values(config)
        OmegaConf.resolve(config)
        declared = _declared(*groups)
        check_leaves(leaves(config), declared)
        check_classes(config)
        _check_data(config, declared)
    except (HydraException, OmegaConfBaseException) as error:
        sentence, *_ = " ".join(str(error).split()).partition(" Config search path")
        raise ValueError(sentence) from error
    _check_echoes(echoes, config)
    identifier = identify(config)
    return Run(config, overrides, identifier, run_directory(config, identifier))


@functools.cache
def _compose_groups(*groups: str) -> DictConfig:
    """Compose the chosen groups, before single values are set."""
    with hydra.initialize_config_dir(str(CONFIGURATIONS), version_base="1.3"):
        return hydra.compose("config", overrides=list(groups))


@functools.cache
def _declared(*groups: str) -> dict[str, Any]:
    """Return the single values of the chosen groups, as their files give them."""
    return leaves(_compose_groups(*groups))


def instantiate(node: DictConfig, **arguments: Any) -> Any:
    """Make the object of a node's `_target_`, settings and further arguments.

    Raises:
        ValueError: in the target's own words where it refuses a value.
    """
    try:
        return hydra.utils.instantiate(node, **arguments)
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise ValueError(str(cause).partition("\n")[0]) from error


def with_scale(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with the scale that fits the machine, if they name none."""
    if any(override.startswith("scale=") for override in overrides):
        return list(overrides)
    return [*overrides, f"scale={default_scale()}"]


def _check_data(config: DictConfig, declared: dict[str, Any]) -> None:
    """Refuse other data under the name of those whose hash the task declares."""
    task, expected = config.task, declared.get("task.sha256")
    if expected not in (None, task.get("sha256")) and task.name == declared["task.name"]:
        raise ValueError(
            f"task.sha256={task.sha256} is not that of {task.name}; other data need a name of "
            "their own, as in task.name=my_images"
        )


def default_scale() -> str:
    """Return the scale of this machine: the paper's with a GPU, else smoke."""
    return "paper" if torch.cuda.is_available() else "smoke"


def identify(config: DictConfig | dict[str, Any]) -> str:
    """Return sixteen hexadecimal digits of what decides a run's result, and of nothing else."""
    text = json.dumps(decisive(config), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def decisive(config: DictConfig | dict[str, Any]) -> dict[str, Any]:
    """Return the settings that decide a run's result, by their dotted names.

    Names of classes, of ways to begin and of ways to draw samples are none of them, nor are
    settings of the task that the model and the training take from it. A setting of the training
    that is null is none: so runs have the identifiers that they had before there was such a
    setting. A whole number is the same however it is written.
    """
    taken = [f"task.{key}" for key in (*config["training"], *NOT_OF_DATA)]
    names = ["initialization.name", "sampling.name"]
    left_out = ["model.label", "model.core._target_", *names, *taken]
    return {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in leaves(config).items()
        if _is_within(key, DECISIVE)
        and not _is_within(key, left_out)
        and not (value is None and key.startswith("training."))
    }


def _is_within(key: str, nodes: Iterable[str]) -> bool:
    """Return True if a leaf is one of the nodes, or below one."""
    return any(key == node or key.startswith(f"{node}.") for node in nodes)


def samples_at_most(config: DictConfig) -> int:
    """Return the samples of a run that is not solved: `max_samples`, to the next validation."""
    epoch: int = config.training.samples_per_epoch
    return -(-config.training.max_samples // epoch) * epoch


def run_directory(config: DictConfig, identifier: str) -> Path:
    """Return the directory of a run's files: one for every configuration, named by it."""
    name = (
        f"{config.task.name}-{config.model.name}-L{config.model.depth}"
        f"-seed{config.seed}-{identifier[:8]}"
    )
    return Path(config.output_dir).resolve() / config.experiment.name / name


def plain(config: DictConfig) -> dict[str, Any]:
    """Return the configuration as dictionaries, lists and values, every reference resolved."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def flat(config: DictConfig) -> dict[str, Any]:
    """Return every leaf by its dotted name, as the command line and a sweep file write it.

    The names of the chosen groups are among them (`model`, `task`, ...), so that what a
    W&B sweep sets and what the run reports are the same keys with the same values.
    """
    groups = ("task", "model", "initialization", "sampling", "scale", "experiment")
    return leaves(config) | {group: config[group].name for group in groups}


def hyperparameters(config: DictConfig) -> dict[str, Any]:
    """Return all settings by dotted name, and by the names of a record those to group by."""
    model = config.model
    return flat(config) | {"label": model.label, "depth": model.depth, "channels": model.channels}


def leaves(config: DictConfig | dict[str, Any]) -> dict[str, Any]:
    """Return every single value by its dotted name."""
    found: dict[str, Any] = {}

    def visit(prefix: str, node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                visit(f"{prefix}.{key}" if prefix else key, value)
        else:
            found[prefix] = node

    visit("", plain(config) if isinstance(config, DictConfig) else config)
    return found


class _Setting(NamedTuple):
    """One override: its key, its value and its text."""

    key: str
    value: Any
    text: str


def _parse(text: str) -> _Setting:
    """Return the setting that one override makes.

    Raises:
        ValueError: it does not set one key to one value, or a group to a file's name.
    """
    key, equals, value = text.partition("=")
    if key.startswith(("+", "~")):
        raise ValueError(f"{text}: settings cannot be added or deleted, only set: key=value")
    if not equals:
        raise ValueError(f"{text}: a setting is written as key=value")
    if key in TEXTS:
        return _Setting(key, _literal(key, value), text)
    if value == "None":  # as W&B writes null
        text = f"{key}=null"
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ValueError(
            f"{text}: the value cannot be read; text with such signs is quoted twice: "
            f"{key}='\"...\"'"
        ) from error
    if override.is_sweep_override():
        raise ValueError(f"{text}: one run takes one value; python -m tlstm.sweep runs many")
    found = override.value()
    if _is_group(key) and not isinstance(found, str):
        raise ValueError(f"{text}: {key} takes one name")
    if isinstance(found, dict | list) or "${" in str(found) or found == MISSING:
        raise ValueError(f"{key} must be a single value and no reference, got {found}")
    return _Setting(key, found, text)


def _literal(key: str, text: str) -> str | None:
    """Return text as it was written, a path with the home directory in the place of ~.

    Raises:
        ValueError: it is empty, or looks like a reference to another setting.
    """
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]  # as it had to be written where a grammar reads it
    if key == "task.path" and text in ("null", "None"):
        return None
    if text.strip() in ("", MISSING, *(("null", "None") if key in PATHS else ())) or "${" in text:
        raise ValueError(f"{key} must be {'a path' if key in PATHS else 'text'}, got {text!r}")
    try:
        return str(Path(text).expanduser()) if key in PATHS and text[0] == "~" else text
    except RuntimeError as error:
        raise ValueError(f"{key}={text}: there is no such user") from error


def _is_echo(text: str) -> bool:
    key = text.partition("=")[0]
    return key in (*NO_SETTINGS, "_wandb") or _is_within(key, OF_SWEEPS)


def _check_echoes(echoes: Iterable[str], config: DictConfig) -> None:
    """Refuse what is no setting, unless it is what W&B was told of this very run."""
    told = hyperparameters(config)
    for text in echoes:
        key, _, value = text.partition("=")
        if key != "_wandb" and str(told.get(key)) != value:
            _check_key(plain(config), key)
            raise ValueError(f"{key} cannot be set for a run")


def _is_group(key: str) -> bool:
    return key.isidentifier() and (CONFIGURATIONS / key).is_dir()


def _check_key(known: Any, key: str) -> None:
    where = "the configuration"
    for part in key.split("."):
        if not isinstance(known, dict):
            raise ValueError(f"{key} is unknown: {where} is a single value")
        if part not in known:
            close = difflib.get_close_matches(part, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(
                f"{key} is unknown: {where} has no {part}, it has {', '.join(known)}{hint}"
            )
        where, known = part, known[part]
    if isinstance(known, dict):
        raise ValueError(f"{key} is not a single value: set one of its {', '.join(known)}")
