"""Where a run's metrics are written: CSV always, TensorBoard and W&B unless switched off.

None of them asks for anything: W&B is offline unless the user is logged in or has set
WANDB_MODE, and offline runs can be uploaded later with `wandb sync`. Where W&B refuses or cannot
be reached, a run that was not asked to be online (WANDB_MODE=online) is kept offline and says so.
"""

import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig

from tlstm.training.config import flat, task_label

# Seconds that W&B may take to begin and to end a run, where its own variables say nothing
WANDB_SECONDS = {"WANDB_INIT_TIMEOUT": "60", "WANDB_FINISH_TIMEOUT": "120"}

# Settings by which no two runs of an experiment differ, left out of TensorBoard's HParams
ELSEWHERE = ("scale.", "logger.", "output_dir", "resume")


class HandBack(Callback):
    """Lets W&B give a sweep's run to another agent where this process is told to end (SIGTERM).

    That agent's process goes on from the checkpoint, if it finds the same directory.
    """

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Mark the run, which takes effect as its process ends with another exit code than 0."""
        if isinstance(exception, SIGTERMException) and wandb.run is not None:
            wandb.run.mark_preempting()


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
        ValueError: W&B refuses or cannot be reached, and was asked for with WANDB_MODE=online.
    """
    for variable, seconds in WANDB_SECONDS.items():
        os.environ.setdefault(variable, seconds)
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        return _start_wandb(config, directory, _mode())
    except wandb.Error as error:
        reason = " ".join(str(error).split()).removesuffix(".")
        if _online_was_asked():
            raise ValueError(f"W&B: {reason}; WANDB_MODE=offline needs no account.") from error
    print(
        f"warning: W&B: {reason}; this run is kept offline, and "
        f"`wandb sync {directory}/wandb/offline-run-*` uploads it.",
        file=sys.stderr,
    )
    return _start_wandb(config, directory, "offline")


def _online_was_asked() -> bool:
    return os.environ.get("WANDB_MODE") == "online"


def _mode() -> str:
    """What the user has set, else whether there is an account; its key is tried at once.

    Raises:
        wandb.Error: there is one, and W&B does not take it.
    """
    set_by_user = os.environ.get("WANDB_MODE")
    if set_by_user is not None and not _online_was_asked():
        return set_by_user
    return "online" if wandb.login(prompt=False) or set_by_user else "offline"


def _start_wandb(config: DictConfig, directory: Path, mode: str) -> WandbLogger:
    logger = WandbLogger(
        name=directory.name,
        project=config.logger.project,
        group=config.experiment.name,
        save_dir=directory,
        id=wandb_run_id(directory),
        resume="allow",
        mode=mode,
        settings=wandb.Settings(silent=mode == "offline", finish_timeout_raises=True),
    )
    logger.log_hyperparams(hyperparameters(config))
    logger.experiment.define_metric("*", step_metric="samples")
    return logger


def hyperparameters(config: DictConfig) -> dict[str, Any]:
    """Every setting by its dotted name, and by plain names those that dashboards group by.

    `task_label` is the data that the run trains on, `digits` where `task` says `mnist` and these
    stand in for it; the other names are those of a record.
    """
    names = {
        "task_label": task_label(config),
        "label": config.model.label,
        "depth": config.model.depth,
        "channels": config.model.channels,
    }
    return flat(config) | names


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
    """Put what came out beside the settings, in TensorBoard's HParams and W&B's summary.

    Raises:
        TimeoutError: W&B has not taken everything in, and was asked for with WANDB_MODE=online.
    """
    numbers: dict[str, Any] = {name: value for name, value in result.items() if value is not None}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(_told_apart_by(config), numbers)
            logger.finalize("success")  # written out, which ending the process would not do
        elif isinstance(logger, WandbLogger):
            logger.experiment.summary.update(numbers)
            _finish_wandb(Path(logger.experiment.settings.sync_dir))


def _told_apart_by(config: DictConfig) -> dict[str, Any]:
    """Settings for TensorBoard's HParams: numbers as numbers, so that it can draw them."""
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in hyperparameters(config).items()
        if not key.startswith(ELSEWHERE)
    }


def _finish_wandb(directory: Path) -> None:
    """Wait until W&B has everything, and say so where it takes too long."""
    try:
        wandb.finish()
    except TimeoutError:
        seconds = os.environ["WANDB_FINISH_TIMEOUT"]
        said = (
            f"W&B has not taken the whole run in within {seconds} seconds; its record and CSV log "
            f"are written, and `wandb sync --include-online {directory}` uploads the rest"
        )
        if _online_was_asked():
            raise TimeoutError(f"{said}.") from None
        print(f"warning: {said}.", file=sys.stderr)
