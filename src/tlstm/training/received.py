"""Configurations and sweep files that may come from anybody: data of a bounded size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf

from tlstm.utils import printable, read_regular

LARGEST = 2**17  # bytes of a file
DEEPEST = 20  # collections within each other
MOST_ALIASES = 20  # of which each may double what a file holds


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, nested too deep, or has too many aliases.
        YAMLError: it is no YAML.
    """
    return _load(_bounded_text(path), yaml.safe_load)


def read_config_file(path: Path) -> DictConfig | ListConfig:
    """Return the configuration that a run wrote down: values only, no references.

    A reference would be resolved on this machine, with its variables.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger or deeper than what a run writes, or holds a reference.
        YAMLError, OmegaConfBaseException: it is no configuration.
    """
    text = _bounded_text(path)
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        is_reference = isinstance(event, yaml.ScalarEvent) and "${" in event.value
        if is_reference or isinstance(event, yaml.AliasEvent):
            raise ValueError(
                f"{printable(path)} holds a reference, and only values are read from what a run "
                "wrote"
            )
    config: DictConfig | ListConfig = _load(text, OmegaConf.create)
    return config


def _bounded_text(path: Path) -> str:
    """Return the text of a YAML file that can be loaded in next to no time; as `read_yaml`."""
    try:
        text = read_regular(path, LARGEST).decode()
    except UnicodeDecodeError as error:
        raise yaml.YAMLError(str(error)) from error
    depth = aliases = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        begins, ends = yaml.CollectionStartEvent, yaml.CollectionEndEvent
        depth += isinstance(event, begins) - isinstance(event, ends)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > DEEPEST:
            raise ValueError(f"{printable(path)} is nested more than {DEEPEST} deep")
        if aliases > MOST_ALIASES:
            raise ValueError(f"{printable(path)} has more than {MOST_ALIASES} aliases")
    return text


def _load(text: str, load: Callable[[str], Any]) -> Any:
    try:
        return load(text)
    except ValueError as error:  # as for a number of too many digits
        raise yaml.YAMLError(str(error)) from error
