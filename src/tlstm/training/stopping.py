"""When training ends before its budget is spent."""

import math
from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer

from tlstm.training.learning_curve import History
from tlstm.training.module import SequenceModule


class StopWhenDecided(Callback):
    """Ends training once it is decided how it ends, before its budget is spent.

    That is when the task is solved, when the validation loss is not finite any more, or when so
    many validations in a row were no better than the best. A run that was interrupted between its
    end and its record ends at once when it goes on.

    Args:
        history: the run's learning curve, of which this callback comes after.
        patience: validations; 0 never ends a run for being no better.

    Attributes:
        diverged: whether the loss was not finite.
    """

    diverged = False

    def __init__(self, history: History, patience: int) -> None:
        self._history = history
        self._patience = patience

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End at once what had been decided."""
        self._stop_if_decided(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide."""
        self.diverged = not math.isfinite(trainer.callback_metrics["validation/loss"])
        self._stop_if_decided(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"diverged": self.diverged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.diverged = state_dict["diverged"]

    def _stop_if_decided(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SequenceModule)
        solved = pl_module.samples_to_threshold.reached is not None
        if self.diverged or solved or self.no_better(pl_module.selected_by):
            trainer.should_stop = True

    def no_better(self, selected_by: Literal["accuracy", "loss"]) -> bool:
        """Whether the last validations, as many as the patience, were no better than the best."""
        curve = self._history.curve
        if not self._patience or not curve:
            return False
        return len(curve) - 1 - self._history.best(selected_by) >= self._patience
