"""From the files of conf/ and a command line to one resolved configuration.

Only `train` and `sweep` know Hydra, and they know it through this file.
"""

import copy
import difflib
import functools
import hashlib
import json
from collections.abc import Sequence
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
from tlstm.records.schema import (
    LATER,
)
from tlstm.training.schema import check_values

PACKAGED = Path(__file__).parents[1] / "conf"
CONFIGURATIONS = PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[3] / "conf"

PLACES = ("data_dir", "path")  # settings of a task that say where its data are, not what they are
DECLARED = ("sha256_of",)  # of all data that a task can have; its sha256 is that of its own

DEFAULT_FLOAT32_PRECISION = "high"

# Where the layers were when the committed runs were given their identifiers
FORMER_TARGETS = {
    "tlstm.layers.tensorized.TensorizedLSTM": "tlstm.layer.TensorizedLSTM",
    "tlstm.layers.tensorized.TensorizedRNN": "tlstm.layer.TensorizedRNN",
    "tlstm.layers.stacked.StackedLSTM": "tlstm.models.stacked.StackedLSTM",
    "tlstm.layers.stacked.StackedRNN": "tlstm.models.stacked.StackedRNN",
    "tlstm.layers.grid_lstm.GridLSTM": "tlstm.models.grid_lstm.GridLSTM",
}

OmegaConf.register_new_resolver("tensor_size", geometry.tensor_size, replace=True)
OmegaConf.register_new_resolver("paper_name", paper_name, replace=True)


class Run(NamedTuple):
    """What one run is to do.

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
    """The run that a command line describes.

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
        overrides = _with_source(config, overrides)
        check_values(config)
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        sentence, *_ = " ".join(str(error).split()).partition(" Config search path")
        raise ValueError(sentence) from error
    identifier = identify(config)
    return Run(config, overrides, identifier, run_directory(config, identifier))


@functools.cache
def _compose_groups(*groups: str) -> DictConfig:
    """The configuration of the chosen groups, before single values are set."""
    with hydra.initialize_config_dir(str(CONFIGURATIONS), version_base="1.3"):
        return hydra.compose("config", overrides=list(groups))


def instantiate(node: DictConfig, **arguments: Any) -> Any:
    """What a node's `_target_` makes of its settings and further arguments.

    Raises:
        ValueError: in the target's own words where it refuses a value.
    """
    try:
        return hydra.utils.instantiate(node, **arguments)
    except InstantiationException as error:
        refused = isinstance(error.__cause__, ValueError)
        raise ValueError(str(error.__cause__ if refused else error)) from error


def with_scale(overrides: Sequence[str]) -> list[str]:
    """The overrides with the scale that fits the machine, where they name none."""
    if any(override.startswith("scale=") for override in overrides):
        return list(overrides)
    return [*overrides, f"scale={default_scale()}"]


def _with_source(config: DictConfig, overrides: list[str]) -> list[str]:
    """The overrides with the data that there are, where the task has a choice and they name none.

    A run so keeps to its data when it goes on or is repeated elsewhere.
    """
    source = OmegaConf.select(config, "task.source")
    if source is None:
        return overrides
    if source not in ("auto", *config.task.labels):
        choices = ", ".join(config.task.labels)
        raise ValueError(f"task.source must be auto or one of {choices}, got {source!r}")
    places = _places(config)
    data_module: Any = hydra.utils.get_class(config.task.data._target_)
    settled = {}
    if source == "auto":
        named = any(o.partition("=")[0] in {f"task.{place}" for place in places} for o in overrides)
        settled["source"] = source = data_module.available_source(**places, named=named)
    if config.task.get("text") == "auto":
        settled["text"] = data_module.fingerprint_of(source, **places)
    config.task.update(settled)
    others = [o for o in overrides if o.partition("=")[0] not in {f"task.{key}" for key in settled}]
    return [*others, *(f"task.{key}={value}" for key, value in settled.items())]


def _places(config: DictConfig) -> dict[str, Path | None]:
    """Where the data of a task are, by the names of its settings."""
    places = {place: config.task[place] for place in PLACES if place in config.task}
    for place, value in places.items():
        if not (isinstance(value, str) or (value is None and place == "path")):
            raise ValueError(f"task.{place} must be text, got {value!r}")
    return {place: None if value is None else Path(value) for place, value in places.items()}


def default_scale() -> str:
    """The scale of this machine: the paper's with a GPU, else smoke."""
    return "paper" if torch.cuda.is_available() else "smoke"


def identify(config: DictConfig) -> str:
    """Sixteen hexadecimal digits of what decides a run's result, and of nothing else.

    The precision of float32 products counts where it is not the default, whose runs were given
    their identifiers before it did.
    """
    decisive = {key: config[key] for key in ("seed", "task", "model", "training")}
    decisive["precision"] = config.trainer.precision
    if config.trainer.float32_matmul_precision != DEFAULT_FLOAT32_PRECISION:
        decisive["float32_matmul_precision"] = config.trainer.float32_matmul_precision
    plain: Any = OmegaConf.to_container(OmegaConf.create(decisive), resolve=True)
    for key in as_before(config):
        *nodes, name = key.split(".")
        functools.reduce(lambda node, part: node.get(part, {}), nodes, plain).pop(name, None)
    for settings in (plain["task"], plain["task"]["data"]):
        for name in (*PLACES, *DECLARED):
            settings.pop(name, None)
    core = plain["model"]["core"]
    core["_target_"] = FORMER_TARGETS.get(core["_target_"], core["_target_"])
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def samples_at_most(config: DictConfig) -> int:
    """The samples of a run that is not solved: `max_samples`, to the next validation."""
    epoch: int = config.training.samples_per_epoch
    return -(-config.training.max_samples // epoch) * epoch


def later(config: DictConfig, key: str) -> Any:
    """A setting of `LATER`, which the configuration of an earlier run lacks."""
    return OmegaConf.select(config, key, default=LATER[key])


def as_before(config: DictConfig) -> set[str]:
    """Those settings of `LATER` that are what they were before they could be set."""
    return {key for key, before in LATER.items() if later(config, key) == before}


def task_label(config: DictConfig) -> str:
    """What a run's task is called: its name, or that of the data which stand in for its own."""
    label: str = config.task.get("label", config.task.name)
    return label


def run_directory(config: DictConfig, identifier: str) -> Path:
    """Where a run leaves its files: named by what it trains, one for every configuration."""
    name = (
        f"{task_label(config)}-{config.model.name}-L{config.model.depth}"
        f"-seed{config.seed}-{identifier[:8]}"
    )
    return Path(config.output_dir).resolve() / config.experiment.name / name


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as dictionaries, lists and values, every reference resolved."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def flat(config: DictConfig) -> dict[str, Any]:
    """Every leaf by its dotted name, as the command line and a sweep file write it.

    The names of the chosen groups stand beside them (`model`, `task`, ...), so that what a
    W&B sweep sets and what the run reports are the same keys with the same values.
    """
    leaves: dict[str, Any] = {}

    def visit(prefix: str, node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                visit(f"{prefix}.{key}" if prefix else key, value)
        else:
            leaves[prefix] = node

    visit("", plain(config))
    chosen = {group: config[group].name for group in ("task", "model", "scale", "experiment")}
    return leaves | chosen


def _set_value(config: DictConfig, override: Override) -> None:
    """Set what one override sets, unless it chose a group; the key must be there."""
    key = override.key_or_group
    if not _is_group(key):
        _check_key(OmegaConf.to_container(config, resolve=False), key)
        OmegaConf.update(config, key, override.value())


def _check_form(override: Override) -> None:
    """An override sets one thing to one value, and a group to the name of a file."""
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
