"""How long a forward and backward pass takes, as the paper's figures give it; how busy a GPU is.

On a GPU, passes are measured as they train: replayed from a CUDA graph, if training does so.
"""

import logging
import time
from importlib import import_module
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tlstm.tasks.base import Batch
from tlstm.training.cuda_graph import Recording, kept
from tlstm.training.module import SequenceModule

# Its import remarks, on the error stream of every command, on CUDA's compiler without a GPU
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
Timer = import_module("torch.utils.benchmark").Timer


def milliseconds_per_timestep(module: SequenceModule, batch: Batch, seconds: float = 0.3) -> float:
    """Milliseconds of one forward and backward pass per timestep of a single example.

    Batch time / (timesteps × batch) [paper], with the timesteps of the input: what a model
    spends on its delay counts as time, not as timesteps [ours]. The median of repetitions.

    Args:
        module: on the device to measure on.
        batch: training samples on the same device.
        seconds: how long to go on measuring, at the least.
    """

    def passes() -> Tensor:
        module.zero_grad(set_to_none=True)
        loss = module.loss(batch)
        with torch.autocast(loss.device.type, enabled=False):  # as the module trains
            loss.backward()
        return loss.detach()

    with kept(module.carried(batch)):
        run = Recording(passes).replay if module.captured else passes
        run()  # warm up
        timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
        median = timer.blocked_autorange(min_run_time=seconds).median
    module.zero_grad(set_to_none=True)
    return 1e3 * median / batch.targets.numel()


class MeasureRuntime(Callback):
    """Measures the runtime on the device that trains, before training begins.

    Attributes:
        milliseconds: per timestep of a single example, forward and backward.
    """

    milliseconds: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, for a run that has nothing left to train when it goes on."""
        return {"milliseconds": self.milliseconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.milliseconds = state_dict["milliseconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, on the first training batch; the weights stay as they are."""
        assert isinstance(pl_module, SequenceModule)
        loader = trainer.train_dataloader
        assert loader is not None
        size = pl_module.batch_size // trainer.world_size
        batch = Batch(*(part[:size] for part in next(iter(loader))))  # of those that come as one
        batch = Batch(*trainer.strategy.batch_to_device(batch))
        with trainer.precision_plugin.train_step_context():
            self.milliseconds = milliseconds_per_timestep(pl_module, batch)


class MeasureBusy(Callback):
    """Logs `device_busy`, the share of the wall time that a GPU spends in captured optimizer steps.

    Of every epoch with all that belongs to it: drawing samples, validation, checkpoints. The first
    has the capture in it.
    """

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log, and start the clock again."""
        assert isinstance(pl_module, SequenceModule)
        busy = pl_module.busy_seconds()
        now = time.perf_counter()
        if busy is not None:
            share = busy / (now - self._since)
            metrics = {"device_busy": share, "samples": float(pl_module.samples_seen)}
            for logger in trainer.loggers:
                logger.log_metrics(metrics, pl_module.global_step)
        self._since = now
