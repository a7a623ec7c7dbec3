"""A run read again from the directory that it left: its configuration, its record, its network.

Such a directory may come from anywhere, so nothing in it is executed: the configuration may only
name classes of this package, and checkpoints are read as tensors and plain values.
"""

from pathlib import Path
from typing import NamedTuple, cast

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tlstm.records.schema import Record
from tlstm.tasks.base import SequenceDataModule
from tlstm.training.checkpoints import check_checkpoint, load_weights
from tlstm.training.config import identify, samples_at_most
from tlstm.training.module import SequenceModule
from tlstm.training.received import read_config_file
from tlstm.training.record import read_own_record
from tlstm.training.run import make_data, make_module
from tlstm.training.schema import check_classes


class TrainedRun(NamedTuple):
    """A run with its best network.

    Attributes:
        directory: where it lies.
        config: the whole configuration, resolved.
        record: what it left when it was finished, None before.
        data: its samples.
        module: the network of its best checkpoint.
        samples: training samples that this network has learnt from.
    """

    directory: Path
    config: DictConfig
    record: Record | None
    data: SequenceDataModule
    module: SequenceModule
    samples: int


def read_run(directory: Path, data: Path | None = None) -> TrainedRun:
    """Read a run's directory.

    Args:
        directory: runs/<experiment>/<run>.
        data: where the data are, if not where the run had them; see `move_data`.

    Raises:
        OSError: a file cannot be read.
        ValueError: it is no run's directory, or something in it is damaged or of another run;
            the message says what.
    """
    config = read_config(directory)
    try:
        if data is not None:
            move_data(config, data)
        data_module = make_data(config)
        module = make_module(config, data_module)
        best = directory / "checkpoints" / "best.ckpt"
        samples = check_checkpoint(best, module, samples_at_most(config))
    except OmegaConfBaseException as error:
        raise ValueError(
            f"{directory / 'config.yaml'} is of another version of tlstm, or damaged: {error}"
        ) from error
    load_weights(best, module)
    path = directory / "record.json"
    record = read_own_record(path, identify(config)) if path.exists() else None
    return TrainedRun(directory, config, record, data_module, module.eval(), samples)


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
            raise ValueError(
                f"{directory} is a run of format 1; `python -m tlstm.results migrate --runs "
                f"{directory.parent.parent}` brings it to format 2"
            )
        try:
            check_classes(config)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
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
