"""When a run ends before its budget is spent: patience, compared with Lightning's own."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import EarlyStopping

from commands import EASY, measure_quickly, record_of, run_directory, tiny, train_here
from tlstm import train
from tlstm.training.config import compose
from tlstm.training.learning_curve import History
from tlstm.training.stopping import StopWhenDecided


def epochs_by_lightning(values: list[float], patience: int, mode: Literal["max", "min"]) -> int:
    """Validations until Lightning's early stopping ends a run, all of them where it does not."""
    stopping = EarlyStopping("value", min_delta=0.0, patience=patience, mode=mode)
    for number, value in enumerate(values, 1):
        ends, _ = stopping._evaluate_stopping_criteria(torch.tensor(value, dtype=torch.float64))
        if ends:
            return number
    return len(values)


@given(
    st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=1, max_size=30),
    st.integers(1, 6),
    st.sampled_from(["accuracy", "loss"]),
)
def test_patience_is_lightnings(
    values: list[float], patience: int, selected_by: Literal["accuracy", "loss"]
) -> None:
    history, ended = History(), 0
    stopping = StopWhenDecided(history, patience)
    for value in values:
        history.curve.append({"samples": ended, "accuracy": value, "loss": value, "seconds": 0})
        ended += 1
        if stopping.no_better(selected_by):
            break
    mode: Literal["max", "min"] = "max" if selected_by == "accuracy" else "min"
    assert ended == epochs_by_lightning(values, patience, mode)


def test_without_patience_no_run_is_stopped() -> None:
    history = History()
    history.curve = [{"samples": i, "accuracy": 0, "loss": 1, "seconds": 0} for i in range(99)]
    assert not StopWhenDecided(history, 0).no_better("accuracy")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    measure_quickly(monkeypatch)


# What changes next to nothing gets no better
STILL = ("training.learning_rate=1e-12", "training.patience=2", "training.threshold=1.0")


@pytest.mark.usefixtures("quick")
def test_a_run_that_gets_no_better_is_stopped_and_says_so(tmp_path: Path) -> None:
    record = train_here(tiny(tmp_path, *STILL, "training.max_samples=3000"))
    assert record.outcome == "stopped early"
    assert len(record.curve) == 3  # the first was the best, two more were not
    assert record.best["samples"] == record.curve[0].samples
    assert "stopped early" in train.outcome(record)


@pytest.mark.usefixtures("quick")
def test_a_stopped_run_that_lost_its_record_ends_the_same(tmp_path: Path) -> None:
    overrides = tiny(tmp_path, *STILL, "training.max_samples=3000")
    first = train_here(overrides)
    (run_directory(tmp_path) / "record.json").unlink()
    train_here(overrides)
    again = record_of(tmp_path)
    assert (again.outcome, again.samples) == (first.outcome, first.samples)
    assert again.curve == first.curve


@pytest.mark.usefixtures("quick")
def test_the_budget_and_the_threshold_go_before_patience(tmp_path: Path) -> None:
    spent = train_here(tiny(tmp_path / "spent", *STILL[:1], "training.patience=9"))
    assert spent.outcome == "budget spent"
    solved = train_here(tiny(tmp_path / "solved", *EASY, "training.patience=1"))
    assert solved.outcome == "solved"


def test_runs_without_patience_are_those_of_before() -> None:
    settings = ["scale=smoke", "task=addition"]
    plain, patient = compose(settings), compose([*settings, "training.patience=3"])
    assert compose([*settings, "training.patience=0"]).identifier == plain.identifier
    assert patient.identifier != plain.identifier
