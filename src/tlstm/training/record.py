"""The record of a run: made without its results before the first step, and found again."""

import os
from datetime import UTC, datetime
from pathlib import Path

import torch
from lightning import Trainer
from pydantic import ValidationError

from tlstm.ops.device import gpu_name
from tlstm.records import provenance
from tlstm.records.schema import Record, read_record
from tlstm.training.config import Run, identify, plain
from tlstm.training.module import SequenceModule
from tlstm.utils import WAIT_POLICY

SELECTED_BY = {
    "accuracy": "highest validation accuracy, the earliest where equal",
    "loss": "lowest validation loss, the earliest where equal",
}


def blank_record(run: Run, module: SequenceModule, trainer: Trainer) -> Record:
    """Return the record of a run without its results, so that what it cannot hold is refused now.

    Raises:
        ValueError: the run could not be recorded; the message names the field.
    """
    config, now = run.config, datetime.now(UTC)
    commit, modified = provenance.commit()
    waiting = os.environ.get(WAIT_POLICY)
    device, devices = gpu_name(trainer.strategy.root_device), trainer.world_size
    try:
        return Record(
            identifier=run.identifier,
            experiment=config.experiment.name,
            scale=config.scale.name,
            task=config.task.name,
            model=config.model.name,
            label=config.model.label,
            depth=config.model.depth,
            channels=config.model.channels,
            seed=config.seed,
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            samples=0,
            samples_to_threshold=None,
            threshold=config.training.threshold,
            best={"accuracy": 0.0},
            last={"accuracy": 0.0},
            test={"accuracy": 0.0},
            selected_by=SELECTED_BY[module.selected_by],
            milliseconds_per_timestep=0.0,
            wall_seconds=0.0,
            device_seconds=0.0,
            outcome="budget spent",
            curve=[],
            started=now,
            finished=now,
            commit=commit,
            modified=modified,
            versions=provenance.versions(cuda=torch.version.cuda, openmp=waiting),
            hardware=provenance.hardware(device, devices, torch.get_num_threads()),
            overrides=run.overrides,
            config=plain(config),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise ValueError(f"the run could not be recorded: {field}: {first['msg']}") from error


def read_own_record(path: Path, identifier: str) -> Record:
    """Return the record of the run that an identifier stands for.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged or another run's; the message says what to do.
    """
    try:
        record = read_record(path)
    except ValueError as error:
        raise ValueError(f"{error}; delete it, and the run can be trained") from error
    try:
        own = identify(record.config) == record.identifier == identifier
    except (KeyError, TypeError, AttributeError):
        own = False
    if not own:
        raise ValueError(
            f"{path} is the record of another run, {record.task}, {record.label}, "
            f"L={record.depth}, seed {record.seed}; delete it, and this run can be trained"
        )
    return record
