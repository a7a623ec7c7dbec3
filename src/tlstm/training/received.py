"""Configurations that may come from anybody: they are data, of a bounded size."""

from pathlib import Path

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf

from tlstm.utils import printable, read_regular

LARGEST = 2**17  # bytes of a configuration
DEEPEST = 20  # collections within each other


def read_config_file(path: Path) -> DictConfig | ListConfig:
    """Return the configuration that a run wrote down: values only, no references.

    A reference would be resolved on this machine, with its variables.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger or deeper than what a run writes, or holds a reference.
        YAMLError, UnicodeDecodeError, OmegaConfBaseException: it is no configuration.
    """
    text = read_regular(path, LARGEST).decode()
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        begins, ends = yaml.CollectionStartEvent, yaml.CollectionEndEvent
        depth += isinstance(event, begins) - isinstance(event, ends)
        if depth > DEEPEST:
            raise ValueError(f"{printable(path)} is nested more than {DEEPEST} deep")
        is_reference = isinstance(event, yaml.ScalarEvent) and "${" in event.value
        if is_reference or isinstance(event, yaml.AliasEvent):
            raise ValueError(
                f"{printable(path)} holds a reference, and only values are read from what a run "
                "wrote"
            )
    try:
        return OmegaConf.create(text)
    except ValueError as error:  # as for a number of too many digits
        raise yaml.YAMLError(str(error)) from error
