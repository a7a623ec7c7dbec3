"""The Lightning callbacks of a run: its learning curve, its end, its runtime, its progress."""

# mypy: disable-error-code="override"
# The hooks are given the module of a run, and no other of Lightning's

import logging
import math
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal, NamedTuple

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from torch import Tensor

from tlstm.records.schema import CurvePoint
from tlstm.tasks.algorithmic import GeneratedDataModule
from tlstm.tasks.base import Batch
from tlstm.training.cuda_graph import CudaGraph, restore_random_numbers, restore_tensors
from tlstm.training.display import DISPLAY_SECONDS, Report, Status
from tlstm.training.module import SequenceModule

# Its import warns, on the error stream of every command, of CUDA's compiler without a GPU
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
Timer = import_module("torch.utils.benchmark").Timer


class LearningCurve(Callback):
    """Keep every validation, and the training time of all attempts at a run, in checkpoints.

    Attributes:
        curve: a point for each validation: samples, accuracy, loss, seconds, and the accuracies at
            the positions of the answer, where the module measures them.
    """

    def __init__(self) -> None:
        self.curve: list[dict[str, Any]] = []
        self._earlier_seconds = 0.0
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall time of this attempt and of earlier ones, up to their last checkpoint."""
        return self._earlier_seconds + time.perf_counter() - self._started

    def on_validation_end(self, trainer: Trainer, pl_module: SequenceModule) -> None:
        """Add a point."""
        point: dict[str, Any] = {
            "samples": pl_module.samples_seen,
            "accuracy": float(trainer.callback_metrics["validation/accuracy"]),
            "loss": float(trainer.callback_metrics["validation/loss"]),
            "seconds": self.seconds,
        }
        if pl_module.position_accuracies:
            point["positions"] = [round(value, 4) for value in pl_module.position_accuracies]
        self.curve.append(point)

    def best(self, selected_by: Literal["accuracy", "loss"]) -> int:
        """Return the index of the highest accuracy or the lowest loss, the earliest of equals."""
        costs = self.costs(selected_by)
        return costs.index(min(costs))

    def costs(self, selected_by: Literal["accuracy", "loss"]) -> list[float]:
        """Return a number for each validation, smaller for a better one."""
        values = [point[selected_by] for point in self.curve]
        if selected_by == "accuracy":
            return [-value for value in values]
        return [value if math.isfinite(value) else math.inf for value in values]

    def points(self) -> list[CurvePoint]:
        """Return the curve in the form of a record."""
        return [CurvePoint.model_validate(point) for point in self.curve]

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"curve": self.curve, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a checkpoint's state."""
        self.curve = list(state_dict["curve"])
        self._earlier_seconds = state_dict["seconds"]


class DecayRate(Callback):
    """Let the learning rate fall after validations, as a function of the learning curve alone.

    Args:
        learning_curve: of the run, before this one among the callbacks.
        patience: validations in a row without a better one before each fall; 0 for a fall at every
            validation.
    """

    def __init__(self, learning_curve: LearningCurve, patience: int) -> None:
        self._learning_curve = learning_curve
        self._patience = patience

    def on_train_start(self, trainer: Trainer, pl_module: SequenceModule) -> None:
        """Continue with the rate of a resumed run."""
        costs = self._learning_curve.costs(pl_module.selected_by)
        pl_module.rate_factor = pl_module.rate_decay ** falls(costs, self._patience)

    def on_validation_end(self, trainer: Trainer, pl_module: SequenceModule) -> None:
        """Set the rate of the next epoch."""
        self.on_train_start(trainer, pl_module)


def falls(costs: Sequence[float], patience: int) -> int:
    """Return how often the learning rate has fallen after validations of these costs."""
    if patience == 0:
        return len(costs)
    best, waited, count = math.inf, 0, 0
    for cost in costs:
        waited = 0 if cost < best else waited + 1
        best = min(best, cost)
        if waited == patience:
            waited, count = 0, count + 1
    return count


class NoteAccuracy(Callback):
    """Tell the data the accuracy of the last validation before each epoch reads training samples.

    The accuracy is of the learning curve, which checkpoints hold: a resumed run reads the samples
    of one that was not interrupted.
    """

    def __init__(self, data: GeneratedDataModule, learning_curve: LearningCurve) -> None:
        self._data = data
        self._learning_curve = learning_curve

    def on_train_epoch_start(self, trainer: Trainer, pl_module: SequenceModule) -> None:
        """Tell it; before the first validation there is none."""
        if self._learning_curve.curve:
            self._data.note_accuracy(self._learning_curve.curve[-1]["accuracy"])


class StopEarly(EarlyStopping):
    """Lightning's early stopping, which also ends a resumed run that had been decided.

    Lightning would train such a run, interrupted before its record was written, for an epoch more.
    """

    def on_train_start(self, trainer: Trainer, pl_module: SequenceModule) -> None:
        """End a decided run at once."""
        trainer.should_stop |= self.stopping_reason != EarlyStoppingReason.NOT_STOPPED


class Stopping(NamedTuple):
    """The rules that end training before its budget is spent.

    Attributes:
        accuracy: ends a solved run.
        loss: ends a run whose validation loss is not finite.
    """

    accuracy: StopEarly
    loss: StopEarly

    @property
    def diverged(self) -> bool:
        """True if the validation loss was not finite."""
        return self.loss.stopping_reason is EarlyStoppingReason.NON_FINITE_METRIC

    @property
    def out_of_patience(self) -> bool:
        """True if too many validations in a row were no better than the best."""
        reasons = (self.accuracy.stopping_reason, self.loss.stopping_reason)
        return EarlyStoppingReason.PATIENCE_EXHAUSTED in reasons


def make_stopping(module: SequenceModule, patience: int) -> Stopping:
    """Return the rules that end the training of a module.

    Args:
        module: names the metric that patience is for, and the accuracy to pass.
        patience: validations in a row without a better one; 0 never ends a run.
    """
    patiences: dict[str, Any] = {"accuracy": math.inf, "loss": math.inf}
    patiences[module.selected_by] = patience or math.inf
    return Stopping(
        StopEarly(
            "validation/accuracy",
            mode="max",
            patience=patiences["accuracy"],
            stopping_threshold=module.samples_to_threshold.threshold,
        ),
        StopEarly("validation/loss", mode="min", patience=patiences["loss"]),
    )


def milliseconds_per_timestep(module: SequenceModule, batch: Batch, seconds: float = 0.3) -> float:
    """Return the milliseconds of a forward and backward pass per timestep of one example.

    Batch time / (timesteps × batch) [paper], with the timesteps of the input: the delay of a model
    adds time, but no timesteps [ours]. The median of repetitions. Passes on a GPU are replayed from
    a CUDA graph where training does so. Random numbers of training stay the same.

    Args:
        module: on the device to measure on.
        batch: training samples on the same device.
        seconds: minimum duration of the measurement.
    """

    def passes() -> Tensor:
        module.zero_grad(set_to_none=True)
        loss = module.loss(batch)
        with torch.autocast(loss.device.type, enabled=False):  # as the module trains
            loss.backward()
        return loss.detach()

    with restore_tensors(module.recurrent_state(batch)), restore_random_numbers(module.device):
        run = CudaGraph(passes).replay if module.captured else passes
        run()  # warm up
        timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
        median = timer.blocked_autorange(min_run_time=seconds).median
    module.zero_grad(set_to_none=True)
    return 1e3 * median / batch.targets.numel()


class MeasureRuntime(Callback):
    """Measure the runtime on the device that trains, before training begins.

    Attributes:
        milliseconds: per timestep of one example, forward and backward.
    """

    milliseconds: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint: a resumed run may have nothing left to train."""
        return {"milliseconds": self.milliseconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a checkpoint's state."""
        self.milliseconds = state_dict["milliseconds"]

    def on_train_start(self, trainer: Trainer, pl_module: SequenceModule) -> None:
        """Measure on the first training batch; the weights stay as they are."""
        loader = trainer.train_dataloader
        assert loader is not None
        size = pl_module.batch_size // trainer.world_size
        with restore_random_numbers(pl_module.device):  # one of which every loader draws
            batch = Batch(*(part[:size] for part in next(iter(loader))))  # which may hold several
        batch = Batch(*trainer.strategy.batch_to_device(batch))
        with trainer.precision_plugin.train_step_context():
            self.milliseconds = milliseconds_per_timestep(pl_module, batch)


class MeasureBusy(Callback):
    """Log `device_busy`, the share of wall time that a GPU spends in graphed optimizer steps.

    An epoch is counted with its sampling, validation and checkpoints, the first one also with the
    capture of the graph.
    """

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: SequenceModule) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: SequenceModule) -> None:
        """Log the share, and restart the clock."""
        busy = pl_module.busy_seconds()
        now = time.perf_counter()
        if busy is not None:
            share = busy / (now - self._since)
            metrics = {"device_busy": share, "samples": float(pl_module.samples_seen)}
            for logger in trainer.loggers:
                logger.log_metrics(metrics, pl_module.global_step)
        self._since = now


class SampleProgress(Callback):
    """Report a run's status several times a second and after each validation."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._first_samples = 0
        self._accuracy: float | None = None
        self._started = self._reported = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: SequenceModule) -> None:
        """Start counting."""
        self._first_samples = pl_module.samples_seen
        self._started = time.perf_counter()
        self._send(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: SequenceModule, *_: Any, **__: Any
    ) -> None:
        """Report, unless the last report is recent."""
        if time.perf_counter() - self._reported > DISPLAY_SECONDS:
            self._send(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: SequenceModule) -> None:
        """Report the new accuracy."""
        self._accuracy = float(trainer.callback_metrics["validation/accuracy"])
        self._send(pl_module)

    def _send(self, pl_module: SequenceModule) -> None:
        self._reported = time.perf_counter()
        samples = pl_module.samples_seen
        elapsed = max(self._reported - self._started, 1e-9)
        speed = (samples - self._first_samples) / elapsed
        self._report(Status(samples, self._accuracy, speed))
