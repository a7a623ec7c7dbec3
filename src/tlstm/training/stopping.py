"""When training ends before its budget is spent."""

import math
from typing import Any

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
        if self.diverged or pl_module.samples_to_threshold.reached is not None:
            trainer.should_stop = True
