"""Loggers of a run's metrics: CSV always, TensorBoard and W&B unless switched off.

None of them prompts: W&B is offline unless the user is logged in or has set WANDB_MODE, and
`wandb sync` uploads offline runs later. Where W&B refuses or is not reached, a run is kept offline
with a warning, unless WANDB_MODE=online demands otherwise.
"""

import os
import re
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

from tlstm.training.config import hyperparameters
from tlstm.utils import read_regular, replace_file

# Seconds for W&B to begin and to end a run, where its own variables are not set
WANDB_SECONDS = {"WANDB_INIT_TIMEOUT": "60", "WANDB_FINISH_TIMEOUT": "120"}

RUN_ID = re.compile(r"[^\s/\\#?%:\ufffd]{1,128}")  # as W&B takes them
LARGEST_ID = 1000  # bytes of its file

ANSWER_SECONDS = 5  # that a process which is told to end waits for W&B's server

# Settings that all runs of an experiment share, left out of TensorBoard's HParams
SHARED = ("scale.", "logger.", "output_dir", "resume")


class MarkPreempting(Callback):
    """Let W&B give a sweep's run to another agent when this process receives SIGTERM.

    That agent's process resumes from the checkpoint, if it has the same directory. Where W&B itself
    has stopped the run, its agent sends the same signal: such a run stays stopped.
    """

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Mark the run; this takes effect when its process ends with an exit code other than 0."""
        run = wandb.run
        if isinstance(exception, SIGTERMException) and run is not None and not is_stopped(run):
            run.mark_preempting()


def is_stopped(run: wandb.Run) -> bool:
    """Return True if W&B's server says that a run shall stop: by its button, or terminated early.

    A server that does not answer has not stopped it.
    """
    if run.offline:
        return False
    from wandb.sdk.launch.api import LaunchApi  # takes a second, and few runs are stopped

    try:
        server = LaunchApi(timeout=ANSWER_SECONDS)
        return server.check_stop_requested(run.project, run.entity, run.id)
    except Exception:  # whatever its client raises
        return False


def make_loggers(config: DictConfig, directory: Path) -> list[Logger]:
    """Return the loggers of a configuration, which write below a run's directory."""
    loggers: list[Logger] = [CSVLogger(directory, name="csv")]
    if config.logger.tensorboard:
        loggers.append(
            TensorBoardLogger(directory, name="tensorboard", version="", default_hp_metric=False)
        )
    if config.logger.wandb:
        loggers.append(make_wandb_logger(config, directory))
    return loggers


def make_wandb_logger(config: DictConfig, directory: Path) -> WandbLogger:
    """Return the W&B logger; a resumed run continues the same W&B run.

    Raises:
        ValueError: W&B refuses or is not reached, and WANDB_MODE=online demands it.
    """
    for variable, seconds in WANDB_SECONDS.items():
        os.environ.setdefault(variable, seconds)
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        return _start_wandb(config, directory, _mode())
    except wandb.Error as error:
        reason = " ".join(str(error).split()).removesuffix(".")
        if _online_demanded():
            raise ValueError(f"W&B: {reason}; WANDB_MODE=offline needs no account.") from error
    print(
        f"warning: W&B: {reason}; this run is kept offline, and "
        f"`wandb sync {directory}/wandb/offline-run-*` uploads it.",
        file=sys.stderr,
    )
    return _start_wandb(config, directory, "offline")


def _online_demanded() -> bool:
    return os.environ.get("WANDB_MODE") == "online"


def _mode() -> str:
    """Return the user's WANDB_MODE, otherwise online where there is an account; try its key.

    Raises:
        wandb.Error: W&B refuses the key.
    """
    set_by_user = os.environ.get("WANDB_MODE")
    if set_by_user is not None and not _online_demanded():
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


def wandb_run_id(directory: Path) -> str:
    """Return the id of a run's W&B run: the one of an agent, otherwise the run's own.

    Raises:
        OSError, ValueError: the file of its own id cannot be read or written; the message names it.
    """
    file = directory / "wandb_run_id"
    given = os.environ.get("WANDB_RUN_ID")
    if given is None and file.exists():
        found = RUN_ID.fullmatch(read_regular(file, LARGEST_ID).decode(errors="replace").strip())
        if found is None:
            raise ValueError(f"{file} holds no id of a W&B run; delete it, and it gets a new one")
        return found[0]
    run_id = given or uuid.uuid4().hex[:8]
    replace_file(file, f"{run_id}\n".encode())
    return run_id


def log_result(
    loggers: list[Logger], config: DictConfig, result: Mapping[str, float | None]
) -> None:
    """Log the results of a run, to TensorBoard's HParams and W&B's summary.

    Raises:
        TimeoutError: W&B has not received everything, and WANDB_MODE=online demands it.
    """
    numbers: dict[str, Any] = {name: value for name, value in result.items() if value is not None}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(_hparams(config), numbers)
            logger.finalize("success")  # writes, unlike the end of the process
        elif isinstance(logger, WandbLogger):
            logger.experiment.summary.update(numbers)
            _finish_wandb(Path(logger.experiment.settings.sync_dir))


def _hparams(config: DictConfig) -> dict[str, Any]:
    """Return settings for TensorBoard's HParams, numbers as numbers for its plots."""
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in hyperparameters(config).items()
        if not key.startswith(SHARED)
    }


def _finish_wandb(directory: Path) -> None:
    """Wait until W&B has received everything, and warn or raise where that takes too long."""
    try:
        wandb.finish()
    except TimeoutError:
        seconds = os.environ["WANDB_FINISH_TIMEOUT"]
        said = (
            f"W&B has not taken the whole run in within {seconds} seconds; its record and CSV log "
            f"are written, and `wandb sync --include-online {directory}` uploads the rest"
        )
        if _online_demanded():
            raise TimeoutError(f"{said}.") from None
        print(f"warning: {said}.", file=sys.stderr)
