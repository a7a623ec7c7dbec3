"""Estimates of the time that runs take at the most, from a few measured passes of each."""

from collections.abc import Sequence

from omegaconf import DictConfig

from tlstm.sweeping.pool import Failure, Request, Send, run_all
from tlstm.training.callbacks import milliseconds_per_timestep
from tlstm.training.config import Run, samples_at_most
from tlstm.training.cores import cores
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

    None stands for a run that cannot be measured, such as one that takes too much memory, also
    where its process ends with it. Where there are GPUs, several processes measure on each: most
    of their time goes to starting up and to compiling kernels, which the runs then find compiled.

    Raises:
        ValueError: none can be measured, each because it is refused; with the first one's reason.
    """
    seconds: list[float | None] = [None] * len(runs)
    failures: list[Failure] = []

    def ended(_: int, failure: Failure | None) -> None:
        failures.extend([failure] if failure else [])

    per_gpu = max(1, min(ESTIMATES_PER_GPU, cores() // (len(devices) or 1)))
    at_a_time = per_gpu * len(devices) or min(jobs, cores())
    requests = [Request(run.config) for run in runs]
    run_all(requests, at_a_time, devices, seconds.__setitem__, ended, _estimate)
    if runs and len(failures) == len(runs) and all(failure.refused for failure in failures):
        raise ValueError(failures[0].reason)
    return seconds


def _estimate(config: DictConfig, send: Send) -> None:
    send(estimate(config))


def estimate(config: DictConfig) -> float:
    """Return the seconds that a run takes if it spends all of its budget."""
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
