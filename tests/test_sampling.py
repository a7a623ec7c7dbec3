"""Training samples that are not uniform: their distributions, splits, and runs that read them."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from commands import (
    assert_same_weights,
    measure_quickly,
    record_of,
    result,
    run_directory,
    tiny,
    train_here,
)
from test_resume import interrupted_at
from test_tasks import row
from tlstm.tasks.addition import AdditionDataModule, AdditionTask
from tlstm.tasks.algorithmic import GeneratedDataModule, Split, split_of
from tlstm.tasks.memorization import MemorizationDataModule
from tlstm.tasks.sampling import Sampling, skewed
from tlstm.training.callbacks import LearningCurve, NoteAccuracy
from tlstm.training.config import compose
from tlstm.training.metrics import PositionAccuracy
from tlstm.training.run import make_data

WAYS: list[dict[str, Any]] = [
    {"skew": 1.0, "skew_samples": 1500},
    {"skew": 1.0, "skew_accuracy": 1.0},
    {"operands": "padded"},
    {"operands": "log_uniform"},
    {"distinct_samples": 40},
]
BY_ACCURACY = ("sampling=skewed_by_accuracy", "sampling.skew=2.0")


def addition(digits: int = 5, seed: int = 0, **sampling: Any) -> AdditionDataModule:
    return AdditionDataModule(digits, seed=seed, sampling=sampling)


def operands_of(data: GeneratedDataModule, number: int, first: int = 0) -> np.ndarray:
    """The digits of training operands, [number, 2, n]."""
    samples = data.training_set.__getitems__(range(first, first + number))
    tokens = torch.stack([sample.inputs for sample in samples]).numpy()
    digits = (data.timesteps - 4) // 3
    return np.stack([tokens[:, 1 : digits + 1], tokens[:, digits + 2 : 2 * digits + 2]], axis=1)


@pytest.mark.parametrize("s", [0.0, 1e-12, 0.3, 2.0])
@pytest.mark.parametrize("radix", [2, 9, 64])
def test_skewed_choices_have_their_distribution(s: float, radix: int) -> None:
    """As many of a grid of quantiles as p(k) ∝ exp(−s·k) says."""
    uniform = (np.arange(100_000)[:, None] + 0.5) / 100_000
    found = skewed(uniform, np.array([radix], dtype=np.uint64), np.full(100_000, s))
    weights = np.exp(-s * np.arange(radix))
    shares = np.bincount(found[:, 0], minlength=radix) / 100_000
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=2e-5)


def test_the_largest_quantile_is_the_last_choice() -> None:
    for s in (0.0, 0.5):
        assert skewed(np.ones((1, 1)), np.array([10], dtype=np.uint64), np.array([s])) == 9


@pytest.mark.parametrize(
    ("settings", "accuracy", "expected"),
    [
        ({"skew": 0.5}, 0.5, [0.5, 0.5, 0.5]),
        ({"skew": 0.5, "skew_samples": 200}, 0.5, [0.5, 0.25, 0]),
        ({"skew": 1.0, "skew_accuracy": 0.8}, 0.0, [1, 1, 1]),
        ({"skew": 1.0, "skew_accuracy": 0.8}, 0.6, [0.25, 0.25, 0.25]),
        ({"skew": 1.0, "skew_accuracy": 0.8}, 0.9, [0, 0, 0]),
        ({}, 0.5, [0, 0, 0]),
    ],
)
def test_the_skew_goes_down_by_the_samples_or_the_accuracy(
    settings: Mapping[str, Any], accuracy: float, expected: list[float]
) -> None:
    found = Sampling(**settings).skews([0, 100, 500], accuracy)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_samples_are_a_function_of_seed_and_index_and_of_the_training_split(
    way: dict[str, Any],
) -> None:
    data, again, other = addition(**way), addition(**way), addition(seed=1, **way)
    together = data.training_set.__getitems__(range(50))
    assert [row(sample) for sample in together] == [row(again.training_set[i]) for i in range(50)]
    assert [row(sample) for sample in together] != [row(other.training_set[i]) for i in range(50)]
    for inputs, targets, _ in data.training_set.__getitems__(range(1000)):
        assert split_of(inputs.numpy()) is Split.TRAINING
        first, second = data.render(inputs).replace(" ", "").strip("-").split("-")
        total = data.render(targets).replace(" ", "").strip("-")
        assert total == str(int(first) + int(second)).zfill(5)
    plain = AdditionDataModule(5)
    for split in ("validation_set", "test_set"):
        assert list(map(row, getattr(data, split))) == list(map(row, getattr(plain, split)))


def test_skewed_digits_are_small_until_the_skew_is_gone() -> None:
    """Their mean is 4.5 where they are uniform; first digits, which are never 0, are left out."""
    data = addition(15, skew=1.0, skew_samples=4000)
    early, late = (operands_of(data, 1000, first)[:, :, 1:].mean() for first in (0, 5000))
    assert early < 3.5
    assert late == pytest.approx(4.5, abs=0.08)
    by_accuracy = addition(15, skew=1.0, skew_accuracy=0.9)
    means = []
    for accuracy in (0.0, 0.45, 0.95):
        by_accuracy.note_accuracy(accuracy)
        means.append(operands_of(by_accuracy, 1000)[:, :, 1:].mean())
    assert means[0] == pytest.approx(early, abs=0.3)
    assert means[0] + 0.3 < means[1] < 4.2
    assert means[2] == pytest.approx(4.5, abs=0.08)


def lengths_and_first_digits(operands: np.ndarray) -> tuple[Counter[int], Counter[int]]:
    numbers = [int("".join(map(str, digits))) for digits in operands.reshape(-1, operands.shape[2])]
    return (
        Counter(len(str(number)) for number in numbers),
        Counter(int(str(number)[0]) for number in numbers if number >= 10),
    )


@pytest.mark.parametrize("form", ["padded", "log_uniform"])
def test_padded_operands_have_every_length_as_often(form: str) -> None:
    operands = operands_of(addition(15, operands=form), 3000)
    lengths, firsts = lengths_and_first_digits(operands)
    assert set(lengths) == set(range(1, 16))
    assert min(lengths.values()) > 320  # of 400: four standard deviations
    first, second = operands[:, 0], operands[:, 1]
    assert ((first > 0).argmax(1) != (second > 0).argmax(1)).mean() > 0.85  # each its own length
    benford = np.log10(1 + 1 / np.arange(1, 10))
    expected = np.full(9, 1 / 9) if form == "padded" else benford
    shares = np.array([firsts[digit] for digit in range(1, 10)]) / firsts.total()
    np.testing.assert_allclose(shares, expected, atol=0.03)


def test_a_fixed_set_of_samples_is_read_again_and_again() -> None:
    samples = addition(distinct_samples=40).training_set.__getitems__(range(120))
    read = [row(sample) for sample in samples]
    assert read[:40] == read[40:80] == read[80:]
    assert len(set(read)) == 40
    assert read[:40] == [row(addition().training_set[index]) for index in range(40)]


@pytest.mark.parametrize(
    ("way", "rendered"),
    [
        (WAYS[0], ["- 3 1 5 4 2 - 9 9 2 1 6", "- 1 0 0 1 0 - 3 1 0 0 0"]),
        (WAYS[2], ["- 0 0 6 6 3 - 0 0 4 5 0", "- 0 0 0 1 1 - 0 0 1 6 9"]),
        (WAYS[3], ["- 0 0 4 4 0 - 0 0 2 7 2", "- 0 0 0 1 0 - 0 0 6 2 3"]),
    ],
)
def test_first_samples_of_seed_0_stay_as_they_are(way: dict[str, Any], rendered: list[str]) -> None:
    """A recorded run is repeated with the samples that it had."""
    data = addition(**way)
    samples = data.training_set.__getitems__([0, 1])
    assert [data.render(sample.inputs).rstrip(" -") for sample in samples] == rendered


@pytest.mark.parametrize(
    ("operands", "read", "written"),
    [
        ((123, 900), "- 3 2 1 - 0 0 9 - - - - -", "- - - - - - - - 3 2 0 1 -"),
        ((123, 456), "- 3 2 1 - 6 5 4 - - - - -", "- - - - - - - - 9 7 5 - -"),
    ],
)
def test_rows_with_the_least_significant_digit_first(
    operands: tuple[int, int], read: str, written: str
) -> None:
    task = AdditionTask(3, least_significant_first=True)
    digits = np.array([[list(map(int, str(number))) for number in operands]])
    inputs, targets, _ = task.samples(task.choices(digits))[0]
    assert (task.render(inputs), task.render(targets)) == (read, written)


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        ({"skew": -1.0}, r"sampling.skew must be 0 or more, got -1.0"),
        ({"skew": float("nan")}, r"sampling.skew must be a finite number"),
        ({"skew_samples": -1}, r"sampling.skew_samples must be an integer of at least 0"),
        ({"skew_accuracy": 1.5}, r"sampling.skew_accuracy must be a number from 0 to 1"),
        ({"distinct_samples": 0.5}, r"sampling.distinct_samples must be an integer"),
        ({"operands": "short"}, r"sampling.operands must be one of uniform, padded, log_uniform"),
        (
            {"operands": "padded"},
            r"sampling.operands must be uniform for memorization of 2 symbols",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(sampling: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MemorizationDataModule(symbols=2, alphabet=9, sampling=sampling)


def test_tasks_whose_samples_are_data_are_not_drawn() -> None:
    config = compose(["scale=smoke", "task=digits", "sampling=skewed"]).config
    with pytest.raises(ValueError, match="sampling=skewed cannot be: digits draws no samples"):
        make_data(config)


# Runs


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    measure_quickly(monkeypatch)


def test_the_data_are_told_the_last_accuracy() -> None:
    learning_curve = LearningCurve()
    learning_curve.curve = [{"accuracy": 0.2}, {"accuracy": 0.6}]
    told, expected = (addition(15, skew=1.0, skew_accuracy=0.9) for _ in range(2))
    NoteAccuracy(told, learning_curve).on_train_epoch_start(MagicMock(), MagicMock())
    expected.note_accuracy(0.6)
    assert np.array_equal(operands_of(told, 50), operands_of(expected, 50))


def test_samples_by_the_accuracy_are_the_same_after_an_interruption_and_from_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_here(tiny(tmp_path / "whole", *BY_ACCURACY))
    with monkeypatch.context() as patch:
        interrupted_at(5, tiny(tmp_path / "again", *BY_ACCURACY), patch)
    train_here(tiny(tmp_path / "again", *BY_ACCURACY))
    train_here(tiny(tmp_path / "workers", *BY_ACCURACY, "trainer.num_workers=2"))
    assert result(record_of(tmp_path / "again")) == result(record_of(tmp_path / "whole"))
    for name in ("again", "workers"):
        assert_same_weights(run_directory(tmp_path / name), run_directory(tmp_path / "whole"))


def test_the_accuracy_at_each_position_is_recorded(tmp_path: Path) -> None:
    """Their mean is the accuracy, since every sample has an answer at every position."""
    train_here(tiny(tmp_path))
    for point in record_of(tmp_path).curve:
        assert point.positions is not None
        assert len(point.positions) == 2
        assert np.mean(point.positions) == pytest.approx(point.accuracy, abs=1e-4)


def test_position_accuracy_counts_over_batches() -> None:
    metric = PositionAccuracy(range(1, 3))
    logits = torch.eye(3)[torch.tensor([[0, 1, 2], [0, 2, 2]])]
    metric.update(logits, torch.tensor([[0, 1, 0], [1, 1, 2]]))
    metric.update(logits[:1], torch.tensor([[2, 1, 0]]))
    torch.testing.assert_close(metric.compute(), torch.tensor([2 / 3, 1 / 3]))
