"""A run made ready: its directory locked, its samples, model, trainer and checkpoint checked."""

import contextlib
import io
import itertools
import logging
import os
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from tlstm.config import Run, flat, instantiate
from tlstm.history import History
from tlstm.loggers import make_loggers
from tlstm.models.network import SequenceNetwork
from tlstm.module import SequenceModule
from tlstm.progress import Report, SampleProgress
from tlstm.record import replace_file
from tlstm.runtime import MeasureRuntime
from tlstm.stopping import StopWhenDecided
from tlstm.tasks.generated import GeneratedDataModule

# Tells the processes of the other devices where the first one leaves the run's files
RUN_DIRECTORY = "TLSTM_RUN_DIRECTORY"


class Job(NamedTuple):
    """A run with all that it takes, checked and not yet begun.

    Attributes:
        run: what is to be done.
        directory: where its files go.
        data: its samples.
        module: its model, freshly initialised.
        trainer: what trains it.
        checkpoint: where it goes on from, None for a fresh start.
        history: its learning curve.
        runtime: its runtime per timestep.
        stopping: why it ends before its budget is spent.
    """

    run: Run
    directory: Path
    data: GeneratedDataModule
    module: SequenceModule
    trainer: Trainer
    checkpoint: Path | None
    history: History
    runtime: MeasureRuntime
    stopping: StopWhenDecided


@contextlib.contextmanager
def prepared(run: Run, report: Report) -> Iterator[Job]:
    """A job ready to train, alone in its directory while the context lasts.

    Args:
        run: what is to be done.
        report: called with the status a few times a second.

    Raises:
        ValueError: the configuration, a checkpoint or the directory does not allow it; the
            message says what and why.
        OSError: the directory cannot be written.
    """
    config = run.config
    set_up_torch(config)
    data = make_data(config)
    module = make_module(config, data)
    directory = claim_directory(run)
    with alone_in(directory), quiet_lightning():
        checkpoint = find_checkpoint(config.resume, directory)
        if checkpoint is not None:
            check_checkpoint(checkpoint, module, config.training.max_samples)
            adopt_best(checkpoint, directory / "checkpoints")
        history, runtime, stopping = History(), MeasureRuntime(), StopWhenDecided()
        keep = KeepCheckpoints(directory / "checkpoints", history)
        trainer = make_trainer(config, [history, runtime, stopping, SampleProgress(report), keep])
        trainer.loggers = make_loggers(config, directory)  # once nothing can be refused any more
        if is_first_process():
            OmegaConf.save(config, directory / "config.yaml")
        yield Job(run, directory, data, module, trainer, checkpoint, history, runtime, stopping)


def is_first_process() -> bool:
    """Whether this process is the first device's, which alone prints and writes files."""
    return getattr(rank_zero_only, "rank", 0) == 0


def claim_directory(run: Run) -> Path:
    """The directory that the run's files go to, made if need be; the same for every device."""
    if not is_first_process():
        return Path(os.environ.get(RUN_DIRECTORY, run.directory))
    never = run.config.resume == "never"
    directory = fresh_directory(run.directory) if never else run.directory
    directory.mkdir(parents=True, exist_ok=True)
    os.environ[RUN_DIRECTORY] = str(directory)
    return directory


def fresh_directory(directory: Path) -> Path:
    """A directory that is not there yet: the given one, or it with a number from 2 on."""
    numbered = (directory.with_name(f"{directory.name}-{n}") for n in itertools.count(2))
    return next(d for d in itertools.chain([directory], numbered) if not d.exists())


@contextlib.contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Keep every other run from training in a directory; the first device's process does it.

    Raises:
        ValueError: one is doing so.
    """
    if not is_first_process():
        yield
        return
    lock = FileLock(directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{directory}: another process is training this very run") from None
    try:
        yield
    finally:
        lock.release()


def set_up_torch(config: DictConfig) -> None:
    """Threads, precision of float32 products, and the seed (0 is one like any other)."""
    if config.trainer.threads is not None:
        torch.set_num_threads(config.trainer.threads)
    torch.set_float32_matmul_precision(config.trainer.float32_matmul_precision)
    seed_everything(config.seed, workers=True, verbose=False)


def make_data(config: DictConfig) -> GeneratedDataModule:
    """The samples that a configuration describes."""
    data: GeneratedDataModule = instantiate(
        config.task.data, num_workers=config.trainer.num_workers
    )
    return data


def make_module(config: DictConfig, data: GeneratedDataModule) -> SequenceModule:
    """The model that a configuration describes, for a task's symbols."""
    core = instantiate(config.model.core, input_size=data.vocabulary_size)
    return SequenceModule(
        SequenceNetwork(core, data.vocabulary_size),
        learning_rate=config.training.learning_rate,
        threshold=config.training.threshold,
        batch_size=config.training.batch_size,
        description=describe(config, data),
    )


def describe(config: DictConfig, data: GeneratedDataModule) -> dict[str, Any]:
    """What a checkpoint says of its run: all but the budget, which a run that goes on may raise."""
    settings = {
        key: value
        for part in ("seed", "training.", "task.data.")
        for key, value in flat(config).items()
        if key.startswith(part) and key != "training.max_samples"
    }
    return {
        "model": OmegaConf.to_container(config.model, resolve=True),
        "symbols": data.vocabulary_size,
        "settings": settings,
    }


def make_trainer(config: DictConfig, callbacks: list[Callback]) -> Trainer:
    """Lightning's trainer; an epoch is what lies between two validations.

    Raises:
        ValueError: the machine has not what the configuration asks for.
    """
    try:
        trainer = Trainer(
            accelerator=config.trainer.accelerator,
            devices=config.trainer.devices,
            precision=config.trainer.precision,
            max_epochs=config.training.max_samples // config.training.samples_per_epoch,
            logger=False,
            callbacks=callbacks,
            plugins=[WholeCheckpoints()],
            num_sanity_val_steps=0,
            log_every_n_steps=50,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error
    if config.training.batch_size % trainer.world_size:
        raise ValueError(
            "training.batch_size must be a multiple of the number of devices "
            f"({trainer.world_size}), got {config.training.batch_size}"
        )
    return trainer


class KeepCheckpoints(Checkpoint):
    """Keeps the best checkpoint and the last one, at the end of every epoch.

    Lightning's own writes the last one only where it is the best, and forgets how good the best
    was when a directory has been moved.

    Args:
        directory: where they go.
        history: tells whether the last validation was the best.
    """

    def __init__(self, directory: Path, history: History) -> None:
        self._directory = directory
        self._history = history

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write them, the last one last: a run that goes on from it finds its best one."""
        *earlier, accuracy = (point["accuracy"] for point in self._history.curve)
        if accuracy > max(earlier, default=-1):
            trainer.save_checkpoint(self._directory / "best.ckpt")
        trainer.save_checkpoint(self._directory / "last.ckpt")


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are written whole or not at all, whenever the process is killed.

    Lightning's own are copied from the directory of temporary files where that is another disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint in the place of the one before."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        replace_file(Path(path), content.getvalue())


def find_checkpoint(resume: str, directory: Path) -> Path | None:
    """The checkpoint to go on from: the one that was named, else the run's own last one."""
    if resume not in ("auto", "never"):
        if not Path(resume).is_file():
            raise ValueError(
                f"resume must be auto, never or a checkpoint's path; there is no file {resume}"
            )
        return Path(resume)
    own = directory / "checkpoints" / "last.ckpt"
    return own if own.exists() else None


def check_checkpoint(path: Path, module: SequenceModule, max_samples: int) -> None:
    """Make sure that a checkpoint is of this very run, but for its budget.

    Raises:
        ValueError: it is another model's or another run's, it has seen more samples than this
            run may, or it is no checkpoint.
    """
    description = module.description
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        found, samples = checkpoint["description"], checkpoint["global_step"] * module.batch_size
    except (KeyError, TypeError, RuntimeError, OSError, EOFError, pickle.PickleError) as error:
        raise ValueError(f"{path} is no checkpoint of tlstm.train, or it is damaged") from error
    if (found["model"], found["symbols"]) != (description["model"], description["symbols"]):
        raise ValueError(
            f"{path} is a checkpoint of another model: {_in_words(found)}; "
            f"this run's is {_in_words(description)}"
        )
    if found != description:
        theirs, ours = found["settings"], description["settings"]
        key = next(key for key in ours | theirs if theirs.get(key) != ours.get(key))
        raise ValueError(
            f"{path} is a checkpoint of another run: its {key} is {theirs.get(key)}, "
            f"this run's is {ours.get(key)}"
        )
    if samples > max_samples:
        raise ValueError(
            f"{path} has seen {samples} samples, more than training.max_samples={max_samples}"
        )


def adopt_best(checkpoint: Path, directory: Path) -> None:
    """Bring the best checkpoint along where a run goes on from another directory's last one.

    Raises:
        OSError: there is none.
    """
    best = checkpoint.with_name("best.ckpt")
    if best.resolve() != (directory / "best.ckpt").resolve() and is_first_process():
        replace_file(directory / "best.ckpt", best.read_bytes())


def _in_words(description: dict[str, Any]) -> str:
    model = description["model"]
    core = ", ".join(f"{key}={value}" for key, value in model["core"].items() if key[0] != "_")
    return f"{model['name']}, L={model['depth']}, {description['symbols']} symbols ({core})"


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's advice on settings that are meant as they are."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            warnings.filterwarnings("ignore", message=".*treespec.*")  # its own, of torch
            yield
    finally:
        logger.setLevel(level)
