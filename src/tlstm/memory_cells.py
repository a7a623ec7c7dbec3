"""The numbers behind Figure 6, from runs' checkpoints: python -m tlstm.memory_cells [RUN ...].

Without a RUN it takes, for every scale and task, the best recorded run of a tensorized LSTM whose
checkpoint is still there: the one that passed the threshold after the fewest samples, and where
none did, or the task has none, the best on the validation samples [ours].
"""

import argparse
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlstm.layers.memory_trajectory import trajectory
from tlstm.layers.tensorized import TensorizedLSTM
from tlstm.records import provenance
from tlstm.records.memory_cells import MemoryCells, write
from tlstm.records.schema import Record, read_record
from tlstm.records.sources import LEFT_OUT
from tlstm.tasks.base import Batch
from tlstm.training.trained_run import TrainedRun, read_run
from tlstm.utils import (
    CommandParser,
    complain,
    printable,
    refusals,
    refuse,
    run_main,
    sentence,
)

DIGITS = 4  # of the numbers that are stored
CORE = f"{TensorizedLSTM.__module__}.{TensorizedLSTM.__name__}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 1 where some run was left out."""
    parser = CommandParser(
        prog="python -m tlstm.memory_cells",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit code: 0 all stored; 1 some run was left out; 2 nothing could be stored",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIRECTORY")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIRECTORY")
    parser.add_argument(
        "--data", type=Path, metavar="PLACE", help="the data's directory or file, if elsewhere now"
    )
    parser.add_argument("run", type=Path, nargs="*", metavar="RUN", help="runs' directories")
    chosen = parser.parse_args(arguments)
    with refusals(OSError):
        runs = chosen.run or best_runs(chosen.runs)
    if not runs:
        refuse(
            f"there is no finished run of a TensorizedLSTM with P > 1 and its checkpoint in "
            f"{chosen.runs}; `make reproduce-fig4` makes some"
        )
    stored = [store(run, chosen.results, chosen.data) for run in runs]
    return 0 if all(stored) else 1 if any(stored) else 2


def store(directory: Path, results_dir: Path, data: Path | None) -> bool:
    """Store the memory cells of a run and say so; return whether that could be done."""
    try:
        cells = memory_cells(read_run(directory, data))
        path = write(cells, results_dir)
    except (OSError, ValueError) as error:
        complain(f"{directory} is left out: {sentence(error)}")
        return False
    record = cells.record
    what = f"{record.task}, {record.label}, L={record.depth}"
    print(printable(f"{path}: {what}, from {directory}"))
    return True


def best_runs(runs_dir: Path) -> list[Path]:
    """Return the directory of the best run with cells, for each scale and task."""
    best: dict[tuple[str, str], tuple[Record, Path]] = {}
    for record, directory in candidates(runs_dir):
        kind = record.scale, record.task
        if kind not in best or rank(record) < rank(best[kind][0]):
            best[kind] = record, directory
    return [directory for _, (_, directory) in sorted(best.items())]


def candidates(runs_dir: Path) -> Iterator[tuple[Record, Path]]:
    """Yield finished runs of tensorized LSTMs with several locations and with a checkpoint."""
    for path in sorted(runs_dir.glob("*/*/record.json")):
        directory = path.parent
        checkpoint = directory / "checkpoints" / "best.ckpt"
        if directory.parent.name == LEFT_OUT or not checkpoint.is_file():
            continue
        try:
            record = read_record(path)
        except (OSError, ValueError):
            continue  # `tlstm.results collect` names those
        model: Any = record.config.get("model", {})
        core = model.get("core", {})
        if core.get("_target_") == CORE and core.get("tensor_size") != 1:
            yield record, directory


def rank(record: Record) -> tuple[float, float]:
    """Return the key that sorts the runs of a task from the best on."""
    loss = record.best.get("loss")
    by_loss = math.inf if loss is None else loss
    quality = by_loss if "loss" in record.selected_by else -(record.best.get("accuracy") or 0)
    return record.samples_to_threshold or math.inf, quality


def memory_cells(run: TrainedRun) -> MemoryCells:
    """Return the memory cell of a run's best network over a test sample.

    Raises:
        OSError, ValueError: the run is not finished, its model has no such cell, it diverged, or
            its data cannot be had.
    """
    network = run.module.network
    if run.record is None:
        raise ValueError("the run is not finished")
    if not isinstance(network.core, TensorizedLSTM):
        raise ValueError(f"{run.config.model.label} has no tensorized memory cell")
    place, batch = first_answered(run)
    encode = network.encode if network.is_discrete else network.features
    cells, hidden = trajectory(network.core, encode(batch.inputs[None])[0])
    if not cells.isfinite().all():
        raise ValueError("its memory cell is not finite: the run diverged")
    with torch.no_grad():
        guesses = network.head(hidden).argmax(-1)
    commit, modified = provenance.commit()
    return MemoryCells(
        record=run.record.model_copy(update={"curve": []}),
        commit=commit,
        modified=modified,
        sample=place,
        inputs=written_inputs(run, batch.inputs),
        targets=written_answers(run, batch.targets, batch.loss_mask),
        outputs=written_answers(run, guesses, batch.loss_mask),
        cells=[[rounded(value) for value in row] for row in cells.tolist()],
    )


def first_answered(run: TrainedRun) -> tuple[int, Batch]:
    """Return the first test sample that asks for an answer [ours]; a stream's context does not.

    Returns:
        Its place and itself: inputs [T] or [T, input_size], targets [T] and where they are asked
        for.
    """
    run.data.prepare_data()
    samples = run.data.test_set
    numbered = ((place, samples[place]) for place in itertools.count())
    return next((place, sample) for place, sample in numbered if sample.loss_mask.any())


def written_inputs(run: TrainedRun, inputs: Tensor) -> list[str] | list[float]:
    """Return tokens as the task writes them, or the one feature of each timestep."""
    if run.data.is_discrete:
        return [run.data.token_name(token) for token in inputs.tolist()]
    return [rounded(value) for value in inputs[:, 0].tolist()]


def written_answers(run: TrainedRun, answers: Tensor, asked: Tensor) -> list[str | None]:
    """Return answers [T] as the task writes them, None where none is asked for."""
    pairs = zip(answers.tolist(), asked.tolist(), strict=True)
    return [run.data.token_name(token) if counts else None for token, counts in pairs]


def rounded(value: float) -> float:
    """Return a number with as many digits as are stored."""
    return float(f"{value:.{DIGITS}g}")


if __name__ == "__main__":
    sys.exit(run_main(main))
