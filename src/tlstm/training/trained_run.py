"""A run read again from its directory, or from the file of its weights.

Either may come from anywhere, so nothing in it is executed: the configuration may only name classes
of this package, and weights are read as tensors.
"""

import json
from pathlib import Path
from typing import NamedTuple, cast

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tlstm.layers.serialization import read_layer
from tlstm.records.schema import FORMAT_1, Record
from tlstm.tasks.base import SequenceDataModule
from tlstm.training.checkpoints import check_checkpoint, load_weights
from tlstm.training.config import identify, samples_at_most
from tlstm.training.module import SequenceModule
from tlstm.training.received import read_config_file
from tlstm.training.record import read_own_record
from tlstm.training.run import make_data, make_module
from tlstm.training.schema import check_classes, check_sizes

# The errors of building a network from values that no run has
FAULTS = (TypeError, AttributeError, RuntimeError, MemoryError, OverflowError)


class TrainedRun(NamedTuple):
    """A run with its best network.

    Attributes:
        path: its directory or file.
        config: the whole configuration, resolved.
        record: what it left when it was finished, None before.
        data: its samples.
        module: the network of its best checkpoint.
        samples: training samples that this network has learnt from.
        alphabet: the byte that each token of a text stands for, where a file says so.
    """

    path: Path
    config: DictConfig
    record: Record | None
    data: SequenceDataModule
    module: SequenceModule
    samples: int
    alphabet: bytes | None = None


def read_run(path: Path, data: Path | None = None) -> TrainedRun:
    """Read a run.

    Args:
        path: its directory, runs/<experiment>/<run>, or the file that `tlstm.export` made of it.
        data: where the data are, if not where the run had them; see `move_data`.

    Raises:
        OSError: a file cannot be read.
        ValueError: it is no run, or something in it is damaged or of another run; the message says
            what.
    """
    return read_weights(path, data) if path.is_file() else read_directory(path, data)


def read_directory(directory: Path, data: Path | None = None) -> TrainedRun:
    """Read a run from its directory; as `read_run`."""
    config = read_config(directory)
    try:
        if data is not None:
            move_data(config, data)
        best = directory / "checkpoints" / "best.ckpt"
        data_module, module = make_bounded(config, best)
        samples = check_checkpoint(best, module, samples_at_most(config))
    except (OmegaConfBaseException, *FAULTS) as error:
        raise ValueError(
            f"{directory / 'config.yaml'} is of another version of tlstm, or damaged: {error}"
        ) from error
    load_weights(best, module)
    path = directory / "record.json"
    record = read_own_record(path, identify(config)) if path.exists() else None
    return TrainedRun(directory, config, record, data_module, module.eval(), samples)


def read_weights(path: Path, data: Path | None = None) -> TrainedRun:
    """Read a run from the file of its weights; as `read_run`."""
    file = read_layer(path)
    if not file.about.get("record"):
        raise ValueError(
            f"{path} holds a layer without the record of a finished run; "
            "`python -m tlstm.export RUN FILE` writes both"
        )
    try:
        record = Record.model_validate(file.about["record"])
        if "${" in json.dumps(record.config) or identify(record.config) != record.identifier:
            raise ValueError(f"{record.identifier} is not what its configuration makes")
        config = OmegaConf.create(record.config)
        check_classes(config)
        if data is not None:
            move_data(config, data)
        data_module, module = make_bounded(config, path)
        module.network.core.load_state_dict(file.weights)
        module.network.head.load_state_dict(file.head)
        alphabet = file.about["alphabet"]
        found = None if alphabet is None else bytes(alphabet)
        samples = int(file.about["samples"])
    except (OmegaConfBaseException, KeyError, ValueError, *FAULTS) as error:
        raise ValueError(f"{path} is of another version of tlstm, or damaged: {error}") from error
    return TrainedRun(path, config, record, data_module, module.eval(), samples, found)


def make_bounded(config: DictConfig, weights: Path) -> tuple[SequenceDataModule, SequenceModule]:
    """Return the samples and the network of a configuration, which may come from anybody.

    Raises:
        OSError: there is no file of weights.
        ValueError: it has fewer bytes than the network has parameters, or something is refused.
    """
    check_sizes(config)
    data = make_data(config)
    with torch.device("meta"):  # where nothing is allocated
        parameters = sum(each.numel() for each in make_module(config, data).parameters())
    if parameters > weights.stat().st_size:
        raise ValueError(f"{weights} is too small for a network of {parameters:,} parameters")
    return data, make_module(config, data)


def read_config(directory: Path) -> DictConfig:
    """Return the configuration that a run wrote down.

    Raises:
        OSError: it cannot be read.
        ValueError: there is none, or it is damaged.
    """
    path = directory / "config.yaml"
    if not path.is_file():
        raise ValueError(
            f"{directory} is no directory of a run, such as runs/fig4/addition-...: "
            "there is no config.yaml in it"
        )
    try:
        config = read_config_file(path)
        if "training" in config and "initialization" not in config:
            raise ValueError(f"{directory} is a run of {FORMAT_1}")
        try:
            check_classes(config)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    except (YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{path} is no configuration of a run, or it is damaged") from error
    return cast(DictConfig, config)


def move_data(config: DictConfig, data: Path) -> None:
    """Let a configuration look for its data elsewhere, where its task reads any.

    Args:
        config: of a run.
        data: in the place of task.path where the run had a file, else of task.data_dir.
    """
    key = "path" if config.task.get("path") else "data_dir"
    if key in config.task:
        config.task[key] = str(data)
