"""From the files of conf/ and a command line to one resolved configuration.

Only `train` and `sweep` know Hydra, and they know it through this file.
"""

import copy
import difflib
import functools
import hashlib
import json
import math
import re
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

from tlstm import geometry
from tlstm.checks import at_least
from tlstm.naming import paper_name
from tlstm.record import LATER

PACKAGED = Path(__file__).parent / "conf"
CONFIGURATIONS = PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[2] / "conf"

# What a whole number in the configuration may be at the least
MINIMA = {
    "seed": 0,
    "model.depth": 1,
    "model.channels": 1,
    "model.core.rank": 2,
    "model.core.kernel_size": 2,
    "training.batch_size": 1,
    "training.max_samples": 1,
    "training.samples_per_epoch": 1,
    "training.warm_up": 0,
    "trainer.devices": 1,
    "trainer.num_nodes": 1,
    "trainer.threads": 1,
    "trainer.num_workers": 0,
    "trainer.steps_at_a_time": 1,
}

PLACES = ("data_dir", "path")  # settings of a task that say where its data are, not what they are

# What a number in the configuration is above 0 and may be at the most
POSITIVE = {
    "training.learning_rate": math.inf,
    "training.initial_scale": math.inf,
    "training.threshold": 1,
}

# What is a number from 0 on, and 0 where it is not used
FROM_ZERO = ("training.gradient_clip", "training.initial_range")

OPTIONAL = {"model.core.rank", "model.core.kernel_size", "trainer.threads"}
AUTOMATIC = {"trainer.steps_at_a_time"}  # "auto" leaves them to the machine
CHOICES = {  # what a word in the configuration may be
    "training.loss": ("answer", "all"),
    "training.initial_input": ("uniform", "normal"),
    "training.initial_bias": ("uniform", "zero"),
    "trainer.float32_matmul_precision": ("highest", "high", "medium"),
}
LARGEST_SEED = 2**32 - 1  # NumPy takes no larger one
DEFAULT_FLOAT32_PRECISION = "high"

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
        _check_values(config)
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
        for place in PLACES:
            settings.pop(place, None)
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


def _check_values(config: DictConfig) -> None:
    for key, minimum in MINIMA.items():
        value = OmegaConf.select(config, key)
        left_open = OPTIONAL if value is None else AUTOMATIC if value == "auto" else set()
        if key not in left_open:
            at_least(key, value, minimum)
    if config.seed > LARGEST_SEED:
        raise ValueError(f"seed must be at most {LARGEST_SEED}, got {config.seed}")
    _check_words(config)
    for key, maximum in POSITIVE.items():
        value = OmegaConf.select(config, key)
        if not _is_number(value) or not 0 < value <= maximum:
            limit = "" if maximum > 1 else f" and at most {maximum}"
            raise ValueError(f"{key} must be a number above 0{limit}, got {value!r}")
    for key in FROM_ZERO:
        value = OmegaConf.select(config, key)
        if not _is_number(value) or value < 0:
            raise ValueError(f"{key} must be a number from 0 on, got {value!r}")
    epoch = config.training.samples_per_epoch
    if config.training.max_samples < epoch:
        raise ValueError(
            f"training.max_samples must be at least training.samples_per_epoch={epoch}, "
            f"got {config.training.max_samples}"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_words(config: DictConfig) -> None:
    """Refuse before the training what a record or a directory cannot be named with."""
    for group in ("scale", "task", "model", "experiment"):
        name = config[group].name
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", str(name)):
            raise ValueError(f"{group}.name must be letters, digits, _, . and -, got {name!r}")
    for key in ("model.label", "output_dir", "resume"):
        value = OmegaConf.select(config, key)
        if not isinstance(value, str):
            raise ValueError(f"{key} must be text, got {value!r}")
    for key, choices in CHOICES.items():
        value = OmegaConf.select(config, key)
        if value not in choices:
            raise ValueError(f"{key} must be one of {', '.join(choices)}, got {value!r}")
    capture = config.trainer.capture
    if capture != "auto" and not isinstance(capture, bool):
        raise ValueError(f"trainer.capture must be auto, true or false, got {capture!r}")
