"""A run's checkpoints: how they are written, found and told from those of other runs."""

import io
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection
from omegaconf import DictConfig, OmegaConf

from tlstm.training.config import PLACES, as_before, flat
from tlstm.training.learning_curve import History
from tlstm.training.module import SequenceModule
from tlstm.utils import (
    replace_file,
)


def describe(config: DictConfig, symbols: int) -> dict[str, Any]:
    """What a checkpoint says of its run: all but places and the budget, which may rise."""
    places = {f"task.data.{place}" for place in PLACES}
    left_out = {"training.max_samples", *places, *as_before(config)}
    settings = {
        key: value
        for part in ("seed", "training.", "task.data.")
        for key, value in flat(config).items()
        if key.startswith(part) and key not in left_out
    }
    return {
        "model": OmegaConf.to_container(config.model, resolve=True),
        "symbols": symbols,
        "settings": settings,
    }


class KeepCheckpoints(Checkpoint):
    """Keeps the best checkpoint and the last one, at the end of every epoch.

    Lightning's own writes the last one only where it is the best, and forgets how good the best
    was when a directory has been moved.

    Args:
        directory: where they go.
        history: tells whether the last validation was the best.
    """

    def __init__(self, directory: Path, history: History) -> None:
        self._directory = directory
        self._history = history

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write them, the last one last: a run that goes on from it finds its best one."""
        assert isinstance(pl_module, SequenceModule)
        if self._history.best(pl_module.selected_by) == len(self._history.curve) - 1:
            trainer.save_checkpoint(self._directory / "best.ckpt")
        trainer.save_checkpoint(self._directory / "last.ckpt")


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are written whole or not at all, while training goes on.

    What they hold is copied at once; a thread writes it, in the order given, and nothing more
    after a failure: a last checkpoint never lacks its best one. Lightning's own are copied from
    the directory of temporary files where that is another disk.
    """

    def __init__(self) -> None:
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._pending: deque[Future[None]] = deque()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Have a checkpoint written in the place of the one before.

        Raises:
            OSError: an earlier one could not be written.
        """
        self._wait(at_most=1)  # the best and the last one of an epoch may be on their way together
        copied = apply_to_collection(checkpoint, torch.Tensor, _on_host)
        previous = self._pending[-1] if self._pending else None
        self._pending.append(self._writer.submit(_write, copied, Path(path), previous))

    def teardown(self) -> None:
        """Wait until all are written.

        Raises:
            OSError: one could not be written.
        """
        self._wait(at_most=0)

    def _wait(self, at_most: int) -> None:
        """Wait until no more than so many are still to be written."""
        while len(self._pending) > at_most:
            self._pending.popleft().result()


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)


def _write(checkpoint: dict[str, Any], path: Path, previous: Future[None] | None) -> None:
    if previous is not None:
        previous.result()  # raises what kept it from being written
    content = io.BytesIO()
    torch.save(checkpoint, content)
    replace_file(path, content.getvalue())


def find_checkpoint(resume: str, directory: Path) -> Path | None:
    """The checkpoint to go on from: the one that was named, else the run's own last one."""
    if resume not in ("auto", "never"):
        if not Path(resume).is_file():
            raise ValueError(
                f"resume must be auto, never or a checkpoint's path; there is no file {resume}"
            )
        return Path(resume)
    own = directory / "checkpoints" / "last.ckpt"
    return own if own.exists() else None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds: tensors and plain values; nothing in it is executed.

    Raises:
        OSError: there is none.
        ValueError: it is damaged, or it holds anything else.
    """
    with path.open("rb") as file:
        try:
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
            whole = checkpoint.keys() >= {"description", "global_step", "state_dict"}
        except Exception as error:  # a damaged file may break anything within torch
            raise ValueError(_no_checkpoint(path)) from error
    if not whole:
        raise ValueError(_no_checkpoint(path))
    return dict(checkpoint)


def load_weights(path: Path, module: SequenceModule) -> None:
    """Give a module the weights of a checkpoint.

    Raises:
        OSError: there is none.
        ValueError: it is damaged, or its weights are another model's.
    """
    weights = read_checkpoint(path)["state_dict"]
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(_no_checkpoint(path)) from error


def check_checkpoint(path: Path, module: SequenceModule, max_samples: int) -> int:
    """Make sure that a checkpoint is of this very run, but for its budget.

    Returns:
        The training samples that it has seen.

    Raises:
        OSError: there is none.
        ValueError: it is another model's or another run's, it has seen more samples than this
            run may, or it is no checkpoint.
    """
    description, checkpoint = module.description, read_checkpoint(path)
    try:
        found, samples = checkpoint["description"], checkpoint["global_step"] * module.batch_size
        _check_description(path, found, description)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(_no_checkpoint(path)) from error
    if samples > max_samples:
        raise ValueError(
            f"{path} has seen {samples} samples, more than training.max_samples={max_samples}"
        )
    return int(samples)


def _check_description(path: Path, found: dict[str, Any], description: dict[str, Any]) -> None:
    if (found["model"], found["symbols"]) != (description["model"], description["symbols"]):
        raise ValueError(
            f"{path} is a checkpoint of another model: {_in_words(found)}; "
            f"this run's is {_in_words(description)}"
        )
    if found != description:
        theirs, ours = found["settings"], description["settings"]
        key = next(key for key in ours | theirs if theirs.get(key) != ours.get(key))
        raise ValueError(
            f"{path} is a checkpoint of another run: its {key} is {theirs.get(key)}, "
            f"this run's is {ours.get(key)}"
        )


def adopt_best(checkpoint: Path, directory: Path) -> None:
    """Bring the best checkpoint along where a run goes on from another directory's last one.

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
