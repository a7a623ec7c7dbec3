"""Estimates of the time that runs take at the most, from a few measured passes of each."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.queues import Queue

from tlstm.sweeping.gpus import cores, use_devices
from tlstm.sweeping.pool import context
from tlstm.training.callbacks import milliseconds_per_timestep
from tlstm.training.config import Run, compose, samples_at_most
from tlstm.training.distributed import end_with_parent
from tlstm.training.run import (
    make_data,
    make_module,
    make_trainer,
    quiet_lightning,
    set_up_torch,
    use_cuda_graph,
)

# Time outside the passes, measured on two processor cores: the optimizer and the trainer for
# every step; loggers, checkpoints, the test and the process for the whole
STEP_SECONDS = 1.5e-3
CAPTURED_STEP_SECONDS = 0.2e-3  # where a step is replayed from a CUDA graph
RUN_SECONDS = 5.0
ESTIMATES_PER_GPU = 6  # at a time


def estimate_all(runs: Sequence[Run], jobs: int, devices: Sequence[str]) -> list[float | None]:
    """Return the seconds that each run takes at the most, from a few measured passes of each.

    None stands for a run that cannot be measured, such as one that takes too much memory. Where
    there are GPUs, several processes measure on each: most of their time goes to starting up and
    to compiling kernels, which the runs then find compiled.

    Raises:
        OSError: none can be measured, the first because its data cannot be read.
        ValueError: none can be measured, the first because it cannot be trained.
    """
    if not runs:
        return []
    start = context(devices)
    places: list[list[str]] = [[]] * jobs
    if devices:
        each = max(1, min(ESTIMATES_PER_GPU, cores() // len(devices)))
        places = [[device] for device in devices] * each
    free = start.Queue()
    for place in places:
        free.put(place)
    with ProcessPoolExecutor(
        len(places), mp_context=start, initializer=_take_place, initargs=(free,)
    ) as pool:
        measured = [pool.submit(estimate, run.overrides) for run in runs]
        failures = [future.exception() for future in measured]
    if failures[0] and all(isinstance(failure, ValueError | OSError) for failure in failures):
        raise failures[0]
    return [
        None if failure else future.result()
        for future, failure in zip(measured, failures, strict=True)
    ]


def _take_place(free: "Queue[list[str]]") -> None:
    """Prepare a process that measures: on one GPU, if there are any."""
    end_with_parent()
    use_devices(free.get())


def estimate(overrides: list[str]) -> float:
    """Return the seconds that a run takes if it spends all of its budget."""
    config = compose(overrides).config
    set_up_torch(config)
    data = make_data(config)
    module = make_module(config, data)
    with quiet_lightning():
        trainer = make_trainer(config, [])
    module.captured = use_cuda_graph(config, trainer)
    trainer.precision_plugin.convert_module(module.to(trainer.strategy.root_device))
    devices = config.trainer.devices  # of which this process measures one, with its share
    share = config.training.batch_size // devices
    batch = next(iter(data.train_dataloader()))
    batch = type(batch)(*(part[:share].to(module.device) for part in batch))
    with trainer.precision_plugin.train_step_context():
        milliseconds = milliseconds_per_timestep(module, batch, seconds=0.02)
    sample = 1e-3 * milliseconds * data.timesteps / devices  # forward and backward
    samples, epoch = samples_at_most(config), config.training.samples_per_epoch
    step = CAPTURED_STEP_SECONDS if module.captured else STEP_SECONDS
    learning = samples * sample + samples / config.training.batch_size * step
    validating = samples // epoch * data.validation_samples * sample / 3  # forward alone
    return learning + validating + RUN_SECONDS
