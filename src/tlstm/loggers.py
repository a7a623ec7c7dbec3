"""Where a run's metrics are written: CSV always, TensorBoard and W&B unless switched off.

None of them asks for anything: W&B is offline unless the user is logged in or has set
WANDB_MODE, and offline runs can be uploaded later with `wandb sync`.
"""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from omegaconf import DictConfig

from tlstm.config import flat


def make_loggers(config: DictConfig, directory: Path) -> list[Logger]:
    """The loggers that a configuration asks for, writing below a run's directory."""
    loggers: list[Logger] = [CSVLogger(directory, name="csv")]
    if config.logger.tensorboard:
        loggers.append(
            TensorBoardLogger(directory, name="tensorboard", version="", default_hp_metric=False)
        )
    if config.logger.wandb:
        loggers.append(make_wandb_logger(config, directory))
    return loggers


def make_wandb_logger(config: DictConfig, directory: Path) -> WandbLogger:
    """The W&B logger; a run that goes on goes on in the same W&B run.

    Raises:
        ValueError: W&B refuses, for want of a key or of a connection.
    """
    try:
        return _start_wandb(config, directory)
    except wandb.Error as error:
        raise ValueError(f"W&B: {error} WANDB_MODE=offline needs no account.") from error


def _start_wandb(config: DictConfig, directory: Path) -> WandbLogger:
    os.environ.setdefault("WANDB_SILENT", "true")
    mode = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
    logger = WandbLogger(
        name=directory.name,
        project=config.logger.project,
        group=config.experiment.name,
        save_dir=directory,
        id=wandb_run_id(directory),
        resume="allow",
        mode=mode,
        settings=wandb.Settings(silent=mode == "offline"),
    )
    logger.log_hyperparams(flat(config))
    logger.experiment.define_metric("*", step_metric="samples")
    return logger


def wandb_run_id(directory: Path) -> str:
    """The id of a run's W&B run: an agent's where one has given it, else the run's own."""
    file = directory / "wandb_run_id"
    given = os.environ.get("WANDB_RUN_ID")
    if given is None and file.exists():
        return file.read_text(encoding="utf-8").strip()
    run_id = given or uuid.uuid4().hex[:8]
    file.write_text(f"{run_id}\n", encoding="utf-8")
    return run_id


def log_result(
    loggers: list[Logger], config: DictConfig, result: Mapping[str, float | None]
) -> None:
    """Put what came out beside the settings, in TensorBoard's HParams and W&B's summary."""
    numbers: dict[str, Any] = {name: value for name, value in result.items() if value is not None}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            settings = {key: str(value) for key, value in flat(config).items()}
            logger.log_hyperparams(settings, numbers)
        elif isinstance(logger, WandbLogger):
            logger.experiment.summary.update(numbers)
            wandb.finish()
