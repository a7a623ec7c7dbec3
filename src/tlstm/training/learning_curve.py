"""The learning curve of a run, kept in its checkpoints across interruptions."""

import math
import time
from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer

from tlstm.records.schema import (
    CurvePoint,
)
from tlstm.training.module import SequenceModule


class History(Callback):
    """Notes every validation, and the time that training has taken over all its attempts.

    Attributes:
        curve: a point per validation: samples, accuracy, loss, seconds.
    """

    def __init__(self) -> None:
        self.curve: list[dict[str, float]] = []
        self._earlier_seconds = 0.0
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall time of this attempt and of those before it, up to their last checkpoint."""
        return self._earlier_seconds + time.perf_counter() - self._started

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add a point."""
        assert isinstance(pl_module, SequenceModule)
        self.curve.append(
            {
                "samples": pl_module.samples_seen,
                "accuracy": float(trainer.callback_metrics["validation/accuracy"]),
                "loss": float(trainer.callback_metrics["validation/loss"]),
                "seconds": self.seconds,
            }
        )

    def best(self, selected_by: Literal["accuracy", "loss"]) -> int:
        """Which point is the best, by the highest accuracy or the lowest loss; the earliest."""

        def cost(index: int) -> float:
            value = self.curve[index][selected_by]
            if selected_by == "accuracy":
                return -value
            return value if math.isfinite(value) else math.inf

        return min(range(len(self.curve)), key=cost)

    def points(self) -> list[CurvePoint]:
        """The curve as a record keeps it."""
        return [CurvePoint.model_validate(point) for point in self.curve]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"curve": self.curve, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.curve = list(state_dict["curve"])
        self._earlier_seconds = state_dict["seconds"]
