"""The set-up of a run: its directory locked, its samples, model, trainer and checkpoint checked."""

import contextlib
import functools
import inspect
import itertools
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import torch
from filelock import FileLock, Timeout
from lightning import Callback, Trainer, seed_everything
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.plugins import AsyncCheckpointIO
from omegaconf import DictConfig, OmegaConf

from tlstm.layers.comparators.comparator import Comparator
from tlstm.records.schema import Record
from tlstm.tasks.algorithmic import GeneratedDataModule
from tlstm.tasks.base import SequenceDataModule
from tlstm.training.callbacks import (
    DecayRate,
    LearningCurve,
    MeasureBusy,
    MeasureRuntime,
    NoteAccuracy,
    SampleProgress,
    Stopping,
    make_stopping,
)
from tlstm.training.checkpoints import (
    KeepCheckpoints,
    WholeCheckpoints,
    adopt_best,
    check_resumption,
    describe,
    find_checkpoint,
)
from tlstm.training.config import Run, instantiate, samples_at_most
from tlstm.training.cores import threads_each
from tlstm.training.cuda_graph import cuda_graph_obstacle
from tlstm.training.display import Report
from tlstm.training.distributed import (
    OneMachine,
    WorkerSpec,
    by_torchrun,
    environment,
    forget_variables,
    is_first_process,
)
from tlstm.training.initialization import initialize
from tlstm.training.loggers import MarkPreempting, make_loggers
from tlstm.training.module import SequenceModule
from tlstm.training.network import SequenceNetwork
from tlstm.training.record import blank_record
from tlstm.training.stream_module import StreamModule
from tlstm.utils import replace_file

LOG = "output.log"  # of a sweep's run
STEPS_ON_GPU = 50  # Lightning's loop takes about a millisecond for each of its steps

log = logging.getLogger(__name__)


class Job(NamedTuple):
    """A run with all that it takes, checked and not yet begun.

    Attributes:
        run: what is to be done.
        directory: where its files go.
        data: its samples.
        module: its model, freshly initialised.
        trainer: what trains it.
        checkpoint: where it goes on from, None for a fresh start.
        learning_curve: its validations.
        runtime: its runtime per timestep.
        stopping: why it ends before its budget is spent.
        blank: its record without results.
    """

    run: Run
    directory: Path
    data: SequenceDataModule
    module: SequenceModule
    trainer: Trainer
    checkpoint: Path | None
    learning_curve: LearningCurve
    runtime: MeasureRuntime
    stopping: Stopping
    blank: Record


@contextlib.contextmanager
def setup_run(run: Run, report: Report, spec: WorkerSpec | None = None) -> Iterator[Job]:
    """Set up a job ready to train, alone in its directory while the context lasts.

    Args:
        run: what is to be done.
        report: called with the status a few times a second.
        spec: of this process where another one has started it.

    Raises:
        ValueError: the configuration, a checkpoint or the directory does not allow it; the
            message says what and why.
        OSError: the directory cannot be written.
    """
    config = run.config
    set_up_torch(config)
    data = make_data(config)
    data.prepare_data()  # as Lightning will, where it would be too late to refuse
    module = make_module(config, data)
    learning_curve, runtime = LearningCurve(), MeasureRuntime()
    stopping = make_stopping(module, config.training.patience)
    decay = DecayRate(learning_curve, config.training.decay_patience or 0)
    callbacks = [learning_curve, decay, runtime, MeasureBusy(), *stopping, SampleProgress(report)]
    if isinstance(data, GeneratedDataModule):
        callbacks.append(NoteAccuracy(data, learning_curve))
    with quiet_lightning():
        trainer = make_trainer(config, [*callbacks, MarkPreempting()], environment(spec))
        module.captured = use_cuda_graph(config, trainer)
        data.batches_at_a_time = steps_per_launch(config, trainer)
        blank = blank_record(run, module, trainer)
        with open_run_dir(run, module, callbacks, spec) as (directory, checkpoint):
            keep = KeepCheckpoints(directory / "checkpoints", learning_curve)
            trainer.callbacks.append(keep)  # type: ignore[attr-defined]
            if is_first_process():  # once nothing can be refused any more
                trainer.loggers = make_loggers(config, directory)
                replace_file(directory / "config.yaml", OmegaConf.to_yaml(config).encode())
            parts = (trainer, checkpoint, learning_curve, runtime, stopping, blank)
            yield Job(run, directory, data, module, *parts)


@contextlib.contextmanager
def open_run_dir(
    run: Run, module: SequenceModule, callbacks: Sequence[Callback], spec: WorkerSpec | None
) -> Iterator[tuple[Path, Path | None]]:
    """Yield a run's directory and the checkpoint to resume; the first process decides for all.

    Raises:
        ValueError: a checkpoint or another process does not allow it.
        OSError: the directory cannot be written.
    """
    if spec is not None:
        yield spec.directory, spec.checkpoint
    elif not is_first_process():
        yield broadcast(run.config, None)
    else:
        is_named = run.config.resume not in ("auto", "never")
        if is_named:  # before a directory is made
            check_resumption(Path(run.config.resume), module, callbacks, run)
        directory = claim_directory(run)
        with exclusive_lock(directory):
            checkpoint = find_checkpoint(run)
            if checkpoint is not None and not is_named:
                check_resumption(checkpoint, module, callbacks, run)
            if checkpoint is not None:
                adopt_best(checkpoint, directory / "checkpoints")
            yield broadcast(run.config, (directory, checkpoint))


def broadcast(config: DictConfig, said: Any) -> Any:
    """Return the first process's value in all that torchrun has started; they wait for it."""
    if not by_torchrun():
        return said
    with quiet_lightning():
        strategy = make_trainer(config, [], environment(None)).strategy
        strategy.setup_environment()
    return strategy.broadcast(said)


def claim_directory(run: Run) -> Path:
    """Make the directory of the run's files and return it."""
    never = run.config.resume == "never"
    directory = fresh_directory(run.directory) if never else run.directory
    (directory / "checkpoints").mkdir(parents=True, exist_ok=True)
    return directory


def fresh_directory(directory: Path) -> Path:
    """Return a directory without a run: the given one, or it with a number from 2 on.

    The log of a sweep's run is there before the run.
    """
    numbered = (directory.with_name(f"{directory.name}-{n}") for n in itertools.count(2))
    return next(d for d in itertools.chain([directory], numbered) if _is_fresh(d))


def _is_fresh(directory: Path) -> bool:
    return not directory.exists() or {file.name for file in directory.iterdir()} <= {LOG}


@contextlib.contextmanager
def exclusive_lock(directory: Path) -> Iterator[None]:
    """Keep every other run from training in a directory.

    Raises:
        ValueError: one is doing so.
    """
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
    """Set threads, precision of float32 products and the seed (0 is one like any other)."""
    forget_variables()  # before a layer is made
    devices = config.trainer.devices
    share = min(threads_each(1), torch.get_num_threads()) if devices == 1 else None
    torch.set_num_threads(config.trainer.threads or share or threads_each(devices))
    torch.set_float32_matmul_precision(config.trainer.float32_matmul_precision)
    seed_everything(config.seed, workers=True, verbose=False)


def make_data(config: DictConfig) -> SequenceDataModule:
    """Return the samples that a configuration describes.

    Raises:
        ValueError: an argument is out of its range; the message names the setting.
    """
    module = hydra.utils.get_class(config.task.data_module)
    nodes = ("task", "training", "trainer")
    keys = {name: f"{node}.{name}" for node in nodes for name in config[node]} | {"seed": "seed"}
    settings = {name: OmegaConf.select(config, key) for name, key in keys.items()}
    sampling = {k: v for k, v in config.get("sampling", {}).items() if k != "name"}
    settings |= {"sampling": sampling} if sampling else {}
    taken = [name for name in inspect.signature(module).parameters if name in settings]
    if sampling and "sampling" not in taken:
        name, task = config.sampling.name, config.task.name
        raise ValueError(f"sampling={name} cannot be: {task} draws no samples of its own")
    try:
        data: SequenceDataModule = module(**{name: settings[name] for name in taken})
    except ValueError as error:  # its arguments are settings, by their names there
        names = "|".join(name for name in taken if name in keys)
        named = re.sub(rf"^({names})\b|\b(?<!\.)({names})(?==)", lambda n: keys[n[0]], str(error))
        raise ValueError(named) from error
    return data


def make_module(config: DictConfig, data: SequenceDataModule) -> SequenceModule:
    """Return the model that a configuration describes, for a task's inputs and answers."""
    core = instantiate(config.model.core, input_size=data.input_size)
    for name in ("depth",) if isinstance(core, Comparator) else ("depth", "channels"):
        made, asked = getattr(core, name), config.model[name]
        if made != asked:
            raise ValueError(
                f"model.core makes {name}={made}, not model.{name}={asked}: set model.{name} alone"
            )
    if config.training.loss == "all" and not data.has_all_targets:
        raise ValueError(
            f"training.loss=all cannot be: {config.task.name} has no targets beside its answers"
        )
    make: Callable[..., SequenceModule] = SequenceModule
    if data.samples_per_pass is not None:
        make = functools.partial(StreamModule, samples_per_pass=data.samples_per_pass)
    network = SequenceNetwork(core, data.output_size, data.is_discrete)
    initialize(core, config.initialization)  # after the head, which so is always the same
    return make(
        network,
        learning_rate=config.training.learning_rate,
        threshold=config.training.threshold,
        batch_size=config.training.batch_size,
        description=describe(config, data.output_size),
        gradient_clip=config.training.gradient_clip,
        warmup_samples=config.training.warmup_samples,
        loss=config.training.loss,
        optimizer=config.training.get("optimizer") or "adam",  # which earlier runs do not name
        momentum=config.training.get("momentum") or 0.0,
        rate_decay=config.training.get("rate_decay") or 1.0,
        answer_positions=data.answer_positions,
    )


def make_trainer(
    config: DictConfig,
    callbacks: list[Callback],
    processes: ClusterEnvironment | None = None,
) -> Trainer:
    """Return Lightning's trainer; an epoch is what lies between two validations.

    Args:
        config: the whole configuration.
        callbacks: what accompanies the training.
        processes: how those of all devices meet; None for one device alone.

    Raises:
        ValueError: the machine has not what the configuration asks for.
    """
    forget_variables()
    if processes is not None:
        check_devices(config)
    try:
        return Trainer(
            accelerator=config.trainer.accelerator,
            devices=config.trainer.devices if processes else 1,
            num_nodes=config.trainer.num_nodes if processes else 1,
            precision=config.trainer.precision,
            max_epochs=samples_at_most(config) // config.training.samples_per_epoch,
            logger=False,
            callbacks=callbacks,
            plugins=[AsyncCheckpointIO(WholeCheckpoints()), processes or OneMachine()],
            num_sanity_val_steps=0,
            enable_checkpointing=False,  # ours comes when the directory is known
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error


def check_devices(config: DictConfig) -> None:
    """Make sure that the processes are as many as the devices, and share the batch evenly.

    Raises:
        ValueError: they are not, or cannot.
    """
    devices, nodes = config.trainer.devices, config.trainer.num_nodes
    if config.training.batch_size % (devices * nodes):
        raise ValueError(
            "training.batch_size must be a multiple of the number of devices "
            f"({devices * nodes}), got {config.training.batch_size}"
        )
    started = int(os.environ["WORLD_SIZE"]) if by_torchrun() else devices
    if started != devices * nodes:
        told = f"torchrun has started {started} processes" if by_torchrun() else "without torchrun"
        raise ValueError(
            f"trainer.devices={devices} on each of trainer.num_nodes={nodes} machines cannot be: "
            f"{told}; torchrun --nnodes={nodes} --nproc-per-node={devices} starts them"
        )


def use_cuda_graph(config: DictConfig, trainer: Trainer) -> bool:
    """Return True if optimizer steps shall replay from a CUDA graph.

    Raises:
        ValueError: they shall, and cannot.
    """
    if config.trainer.cuda_graph is False:
        return False
    reason = cuda_graph_obstacle(
        trainer.strategy.root_device, trainer.world_size, trainer.precision_plugin.precision
    )
    if reason is not None and config.trainer.cuda_graph is True:
        raise ValueError(f"trainer.cuda_graph=true cannot be: {reason}")
    if reason is not None:
        log.debug("optimizer steps are not captured: %s", reason)
    return reason is None


def steps_per_launch(config: DictConfig, trainer: Trainer) -> int:
    """Return the optimizer steps per step of Lightning's loop."""
    if config.trainer.steps_per_launch != "auto":
        return int(config.trainer.steps_per_launch)
    return STEPS_ON_GPU if trainer.strategy.root_device.type == "cuda" else 1


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advice on settings that are meant as they are."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            warnings.filterwarnings("ignore", message=".*treespec.*")  # its own, of torch
            warnings.filterwarnings("ignore", message="You have overridden `on_before_batch")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
