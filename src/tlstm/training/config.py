"""One resolved configuration from the files of conf/ and a command line.

Only `train` and `sweep` know Hydra, and they know it through this file.
"""

import copy
import difflib
import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tlstm.ops import geometry
from tlstm.records.models import paper_name
from tlstm.training.schema import check_values

PACKAGED = Path(__file__).parents[1] / "conf"
CONFIGURATIONS = PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[3] / "conf"

# What decides the result of a run is below these
DECISIVE = (
    "seed",
    "task",
    "model",
    "initialization",
    "training",
    "trainer.precision",
    "trainer.float32_matmul_precision",
)

# Settings of a task that decide nothing by themselves: how its data are read, and what the model
# and the training take from it
NOT_OF_DATA = ("data_module", "data_dir", "path", "channels", "sizes", "forget_bias")

OmegaConf.register_new_resolver("tensor_size", geometry.tensor_size, replace=True)
OmegaConf.register_new_resolver("paper_name", paper_name, replace=True)


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
    overrides = with_scale(overrides)
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            raise ValueError(f"{text}: a setting is written as key=value")
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        for override in parsed:
            _check_form(override)
        groups = [str(o.input_line) for o in parsed if _is_group(o.key_or_group)]
        config = copy.deepcopy(_compose_groups(*groups))
        for override in parsed:
            _set_value(config, override)
        check_values(config)
        OmegaConf.resolve(config)
        _check_data(config, _compose_groups(*groups))
    except (HydraException, OmegaConfBaseException) as error:
        sentence, *_ = " ".join(str(error).split()).partition(" Config search path")
        raise ValueError(sentence) from error
    identifier = identify(config)
    return Run(config, overrides, identifier, run_directory(config, identifier))


@functools.cache
def _compose_groups(*groups: str) -> DictConfig:
    """Compose the chosen groups, before single values are set."""
    with hydra.initialize_config_dir(str(CONFIGURATIONS), version_base="1.3"):
        return hydra.compose("config", overrides=list(groups))


def instantiate(node: DictConfig, **arguments: Any) -> Any:
    """Make the object of a node's `_target_`, settings and further arguments.

    Raises:
        ValueError: in the target's own words where it refuses a value.
    """
    try:
        return hydra.utils.instantiate(node, **arguments)
    except InstantiationException as error:
        refused = isinstance(error.__cause__, ValueError)
        raise ValueError(str(error.__cause__ if refused else error)) from error


def with_scale(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with the scale that fits the machine, if they name none."""
    if any(override.startswith("scale=") for override in overrides):
        return list(overrides)
    return [*overrides, f"scale={default_scale()}"]


def _check_data(config: DictConfig, declared: DictConfig) -> None:
    """Refuse other data under the name of those whose hash the task declares."""
    task, expected = config.task, declared.task.get("sha256")
    if expected not in (None, task.get("sha256")) and task.name == declared.task.name:
        raise ValueError(
            f"task.sha256={task.sha256} is not that of {task.name}; other data need a name of "
            "their own, as in task.name=my_images"
        )


def default_scale() -> str:
    """Return the scale of this machine: the paper's with a GPU, else smoke."""
    return "paper" if torch.cuda.is_available() else "smoke"


def identify(config: DictConfig) -> str:
    """Return sixteen hexadecimal digits of what decides a run's result, and of nothing else."""
    text = json.dumps(decisive(config), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def decisive(config: DictConfig) -> dict[str, Any]:
    """Return the settings that decide a run's result, by their dotted names.

    Names of classes and of ways to begin are none of them, nor are settings of the task that the
    model and the training take from it. A whole number is the same however it is written.
    """
    taken = [f"task.{key}" for key in (*config.training, *NOT_OF_DATA)]
    left_out = ["model.label", "model.core._target_", "initialization.name", *taken]
    return {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in leaves(config).items()
        if _is_within(key, DECISIVE) and not _is_within(key, left_out)
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
    groups = ("task", "model", "initialization", "scale", "experiment")
    return leaves(config) | {group: config[group].name for group in groups}


def leaves(config: DictConfig) -> dict[str, Any]:
    """Return every single value by its dotted name."""
    found: dict[str, Any] = {}

    def visit(prefix: str, node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                visit(f"{prefix}.{key}" if prefix else key, value)
        else:
            found[prefix] = node

    visit("", plain(config))
    return found


def _set_value(config: DictConfig, override: Override) -> None:
    """Set what one override sets, unless it chose a group; the key must be there."""
    key = override.key_or_group
    if not _is_group(key):
        _check_key(OmegaConf.to_container(config, resolve=False), key)
        OmegaConf.update(config, key, override.value())


def _check_form(override: Override) -> None:
    """Refuse an override that does not set one key to one value, or a group to a file's name."""
    if override.is_add() or override.is_force_add() or override.is_delete():
        raise ValueError(
            f"{override.input_line}: settings cannot be added or deleted, only set: key=value"
        )
    if override.is_sweep_override():
        raise ValueError(
            f"{override.input_line}: one run takes one value; python -m tlstm.sweep runs many"
        )
    if _is_group(override.key_or_group) and not isinstance(override.value(), str):
        raise ValueError(f"{override.input_line}: {override.key_or_group} takes one name")


def _is_group(key: str) -> bool:
    return (CONFIGURATIONS / key).is_dir()


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
