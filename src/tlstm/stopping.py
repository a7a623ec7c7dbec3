"""When training ends before its budget is spent."""

import math

from lightning import Callback, LightningModule, Trainer

from tlstm.module import SequenceModule


class StopWhenDecided(Callback):
    """Ends training once the task is solved, or the validation loss is not finite any more.

    A run that was interrupted between its end and its record ends at once when it goes on.

    Attributes:
        diverged: whether the loss was not finite.
    """

    diverged = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End at once what had been decided."""
        self._stop_if_solved(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide."""
        self._stop_if_solved(trainer, pl_module)
        if not math.isfinite(trainer.callback_metrics["validation/loss"]):
            self.diverged = trainer.should_stop = True

    @staticmethod
    def _stop_if_solved(trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SequenceModule)
        if pl_module.samples_to_threshold.reached is not None:
            trainer.should_stop = True
