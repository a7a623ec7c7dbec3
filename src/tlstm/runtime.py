"""How long a forward and backward pass takes, as the paper's figures give it."""

import logging
from importlib import import_module
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from tlstm.module import SequenceModule
from tlstm.tasks.generated import Batch

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
    module.loss(batch).backward()  # warm up
    timer = Timer(
        "module.loss(batch).backward()",
        globals={"module": module, "batch": batch},
        num_threads=torch.get_num_threads(),
    )
    median = timer.blocked_autorange(min_run_time=seconds).median
    module.zero_grad(set_to_none=True)
    return 1e3 * median / batch.inputs.numel()


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
        batch = trainer.strategy.batch_to_device(next(iter(loader)))
        self.milliseconds = milliseconds_per_timestep(pl_module, Batch(*batch))
