"""The end of a run before its budget is spent."""

from pathlib import Path

import pytest

from commands import EASY, measure_quickly, record_of, run_directory, tiny, train_here
from tlstm import train
from tlstm.training.config import compose

# With this learning rate nothing gets better
STILL = ("training.learning_rate=1e-12", "training.patience=2", "training.threshold=1.0")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    measure_quickly(monkeypatch)


def test_a_run_that_gets_no_better_stops_and_ends_the_same_without_its_record(
    tmp_path: Path,
) -> None:
    overrides = tiny(tmp_path, *STILL, "training.max_samples=3000")
    record = train_here(overrides)
    assert record.outcome == "stopped early"
    assert len(record.curve) == 3  # the first was the best, two more were not
    assert record.best["samples"] == record.curve[0].samples
    assert "stopped early" in train.outcome(record)
    (run_directory(tmp_path) / "record.json").unlink()
    train_here(overrides)
    again = record_of(tmp_path)
    assert (again.outcome, again.samples, again.curve) == ("stopped early", 90, record.curve)


def test_an_interruption_does_not_reset_the_patience(tmp_path: Path) -> None:
    two = tiny(tmp_path / "two", *STILL, "training.max_samples=60")
    assert train_here(two).outcome == "budget spent"
    checkpoint = run_directory(tmp_path / "two") / "checkpoints" / "last.ckpt"
    more = tiny(tmp_path / "more", *STILL, "training.max_samples=3000", f"resume={checkpoint}")
    assert train_here(more).samples == 90


def test_the_budget_and_the_threshold_go_before_patience(tmp_path: Path) -> None:
    for number, patience in enumerate(("training.patience=9", "training.patience=0")):
        spent = train_here(tiny(tmp_path / f"spent{number}", *STILL, patience))
        assert spent.outcome == "budget spent"
    solved = train_here(tiny(tmp_path / "solved", *EASY, "training.patience=1"))
    assert solved.outcome == "solved"


def test_runs_without_patience_are_those_of_before() -> None:
    settings = ["scale=smoke", "task=addition"]
    plain, patient = compose(settings), compose([*settings, "training.patience=3"])
    assert compose([*settings, "training.patience=0"]).identifier == plain.identifier
    assert patient.identifier != plain.identifier
