"""Checkpoints of a run: written, found, and checked to be of this run."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from tlstm.training.callbacks import LearningCurve
from tlstm.training.config import Run, decisive, samples_at_most
from tlstm.training.module import STEPS_COUNTED, SequenceModule
from tlstm.training.optimizers import has_whole_state
from tlstm.utils import open_regular, replace_file, sentence

# The errors of reading a checkpoint that lacks something, or has something else in its place
DAMAGE = (KeyError, IndexError, TypeError, AttributeError)


def describe(config: DictConfig, symbols: int) -> dict[str, Any]:
    """Return the description of a run in its checkpoints: all but places and the budget."""
    left_out = ("model.", "trainer.", "training.max_samples")
    settings = {k: v for k, v in decisive(config).items() if not k.startswith(left_out)}
    return {
        "model": OmegaConf.to_container(config.model, resolve=True),
        "symbols": symbols,
        "settings": settings,
    }


class KeepCheckpoints(Checkpoint):
    """Keep the best checkpoint and the last one, at the end of every epoch.

    Lightning's ModelCheckpoint forgets the score of the best one where a directory has moved, or
    where a run resumes in another directory.

    Args:
        directory: of the checkpoints.
        learning_curve: of the run.
    """

    def __init__(self, directory: Path, learning_curve: LearningCurve) -> None:
        self._directory = directory
        self._learning_curve = learning_curve

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the checkpoints, the last one last: resuming from it needs its best one."""
        assert isinstance(pl_module, SequenceModule)
        curve = self._learning_curve
        if curve.best(pl_module.selected_by) == len(curve.curve) - 1:
            trainer.save_checkpoint(self._directory / "best.ckpt")
        trainer.save_checkpoint(self._directory / "last.ckpt")


class WholeCheckpoints(TorchCheckpointIO):
    """Write checkpoints whole or not at all, and none after a failure.

    A last checkpoint thus never lacks its best one. Lightning's own are copied from the directory
    of temporary files where that is another disk.
    """

    def __init__(self) -> None:
        self._failed = False

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint in place of the one before.

        Raises:
            OSError: it cannot be written.
        """
        if self._failed:
            return
        self._failed = True
        content = io.BytesIO()
        torch.save(checkpoint, content)
        replace_file(Path(path), content.getvalue())
        self._failed = False


def find_checkpoint(run: Run) -> Path | None:
    """Return the checkpoint to resume from: the named one, otherwise the run's last one."""
    if run.config.resume not in ("auto", "never"):
        return Path(run.config.resume)
    own = run.directory / "checkpoints" / "last.ckpt"
    return own if run.config.resume == "auto" and own.exists() else None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint: tensors and plain values; nothing is executed.

    Raises:
        OSError: there is none.
        ValueError: it is damaged, or holds anything else.
    """
    with open_regular(path) as file:
        try:
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
            whole = checkpoint.keys() >= {"description", "global_step", "state_dict"}
        except Exception as error:  # a damaged file may break anything within torch
            raise ValueError(_no_checkpoint(path)) from error
    if not whole:
        raise ValueError(_no_checkpoint(path))
    return dict(checkpoint)


def load_weights(path: Path, module: SequenceModule) -> None:
    """Load the weights of a checkpoint into a module.

    Raises:
        OSError: there is none.
        ValueError: it is damaged, or its weights are another model's.
    """
    weights = read_checkpoint(path)["state_dict"]
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(_no_checkpoint(path)) from error


def check_resumption(
    path: Path, module: SequenceModule, callbacks: Sequence[Callback], run: Run
) -> None:
    """Check that a run can resume from a checkpoint and, in the end, from the best one beside it.

    Raises:
        OSError: there is none.
        ValueError: one of them is no whole checkpoint of this run, or the second is not the best
            of the first; the message says what to do.
    """
    best_path, named = path.with_name("best.ckpt"), run.config.resume != "auto"
    if named and not path.is_file():
        raise ValueError(
            f"resume must be auto, never or a checkpoint's path; there is no file {path}"
        )
    try:
        last = _whole(path, module, callbacks, samples_at_most(run.config))
        best = _whole(best_path, module, callbacks, samples_at_most(run.config))
        curve = _curve(last)
        steps = curve.curve[-1]["samples"] // module.batch_size
        if (last.get("epoch"), last["global_step"]) != (len(curve.curve) - 1, steps):
            raise ValueError(_no_checkpoint(path))
        epoch, best_step = curve.curve[0]["samples"], curve.curve[curve.best(module.selected_by)]
        # The best one is written first: an interruption may have left it an epoch ahead
        expected = best_step["samples"], last["global_step"] * module.batch_size + epoch
        if best["global_step"] * module.batch_size not in expected:
            raise ValueError(f"{best_path} is not the best checkpoint of {path}")
    except (ValueError, OSError) as error:
        if named:
            raise
        raise ValueError(
            f"{sentence(error)}; delete {path}, and the run starts from the beginning"
        ) from error


def _whole(
    path: Path, module: SequenceModule, callbacks: Sequence[Callback], max_samples: int
) -> dict[str, Any]:
    """Return a checkpoint of this run that lacks nothing.

    Raises:
        OSError: there is none.
        ValueError: otherwise.
    """
    check_checkpoint(path, module, max_samples)
    checkpoint = read_checkpoint(path)
    needed = {each.state_key for each in callbacks if each.state_dict()}
    try:
        states = checkpoint["optimizer_states"][0]
        whole = (
            checkpoint["callbacks"].keys() >= needed
            and has_whole_state(states, module.configure_optimizers())
            and _shapes(checkpoint["state_dict"]) == _shapes(module.state_dict())
            and checkpoint.keys() >= module.checkpoint_parts
            and STEPS_COUNTED in checkpoint["loops"]["fit_loop"]
        )
        diverged = not math.isfinite(_curve(checkpoint).curve[-1]["loss"])
        finite = all(weight.isfinite().all() for weight in checkpoint["state_dict"].values())
    except DAMAGE as error:
        raise ValueError(_no_checkpoint(path)) from error
    if not whole or not (finite or diverged):
        raise ValueError(_no_checkpoint(path))
    return checkpoint


def _curve(checkpoint: dict[str, Any]) -> LearningCurve:
    curve = LearningCurve()
    curve.load_state_dict(checkpoint["callbacks"][curve.state_key])
    return curve


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in weights.items()}


def check_checkpoint(path: Path, module: SequenceModule, max_samples: int) -> int:
    """Check that a checkpoint is of this run, its budget apart.

    Returns:
        Training samples seen.

    Raises:
        OSError: there is none.
        ValueError: it is of another model or another run, it has seen more samples than
            `max_samples`, or it is no checkpoint.
    """
    description, checkpoint = module.description, read_checkpoint(path)
    try:
        found, samples = checkpoint["description"], checkpoint["global_step"] * module.batch_size
        _check_description(path, found, description)
        too_many = samples > max_samples
    except DAMAGE as error:
        raise ValueError(_no_checkpoint(path)) from error
    if too_many:
        raise ValueError(
            f"{path} has seen {samples} samples, more than training.max_samples={max_samples}"
        )
    return int(samples)


def _check_description(path: Path, found: dict[str, Any], description: dict[str, Any]) -> None:
    if _network(found) != _network(description):
        raise ValueError(
            f"{path} is a checkpoint of another model: {_in_words(found)}; "
            f"this run's is {_in_words(description)}"
        )
    theirs, ours = found["settings"], description["settings"]
    if theirs != ours:
        key = next(key for key in ours | theirs if theirs.get(key) != ours.get(key))
        raise ValueError(
            f"{path} is a checkpoint of another run: its {key} is {theirs.get(key)}, "
            f"this run's is {ours.get(key)}"
        )


def _network(description: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Return what makes a network of a description: its label, as of a run, decides nothing."""
    model = description["model"].items()
    return {key: value for key, value in model if key != "label"}, description["symbols"]


def adopt_best(checkpoint: Path, directory: Path) -> None:
    """Copy the best checkpoint along where a run resumes from another directory.

    Raises:
        OSError: there is none.
    """
    best = checkpoint.with_name("best.ckpt")
    if best.resolve() != (directory / "best.ckpt").resolve():
        replace_file(directory / "best.ckpt", best.read_bytes())


def _no_checkpoint(path: Path) -> str:
    return f"{path} is no checkpoint of tlstm.train, or it is damaged"


def _in_words(description: dict[str, Any]) -> str:
    model = description["model"]
    core = ", ".join(f"{key}={value}" for key, value in model["core"].items() if key[0] != "_")
    return f"{model['name']}, L={model['depth']}, {description['symbols']} symbols ({core})"
