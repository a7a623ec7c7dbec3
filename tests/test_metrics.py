"""Accuracy, loss and samples to a threshold, against NumPy."""

from collections.abc import Iterator
from typing import NamedTuple

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from tlstm.tasks.base import Batch
from tlstm.training.metrics import IGNORE_INDEX, SamplesToThreshold, masked_targets
from tlstm.training.module import SequenceModule

TOKENS = 5


class Parrot(nn.Module):
    """A network that returns given logits, batch by batch."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, TOKENS)
        self.waiting: list[Tensor] = []

    def forward(self, tokens: Tensor) -> Tensor:
        return self.waiting.pop(0)


class Sample(NamedTuple):
    """Batches of logits [B, T, TOKENS], targets [B, T] and loss mask [B, T]."""

    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    loss_mask: NDArray[np.bool_]

    def batch(self) -> Batch:
        targets = torch.from_numpy(self.targets)
        return Batch(torch.zeros_like(targets), targets, torch.from_numpy(self.loss_mask))


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    seed = draw(st.integers(0, 2**32 - 1))  # no two logits are equal
    logits = np.random.default_rng(seed).normal(size=(*shape, TOKENS)).astype(np.float32)
    targets = draw(arrays.arrays(np.int64, shape, elements=st.integers(0, TOKENS - 1)))
    loss_mask = draw(arrays.arrays(np.bool_, shape))
    loss_mask[0, draw(st.integers(0, shape[1] - 1))] = True
    return Sample(logits, targets, loss_mask)


def counted(*batches: Sample) -> Iterator[tuple[NDArray[np.float64], int]]:
    """The logits and the target of every position of the loss mask."""
    for sample in batches:
        for place in zip(*sample.loss_mask.nonzero(), strict=True):
            yield sample.logits[place].astype(np.float64), sample.targets[place]


def mean_loss(*batches: Sample) -> float:
    """The mean negative log-likelihood, token by token."""
    return np.mean([np.log(np.exp(row).sum()) - row[target] for row, target in counted(*batches)])


def share_of_hits(*batches: Sample) -> float:
    """The share of right tokens."""
    return np.mean([row.argmax() == target for row, target in counted(*batches)])


def module_for(*batches: Sample) -> SequenceModule:
    network = Parrot()
    network.waiting = [torch.from_numpy(sample.logits) for sample in batches]
    return SequenceModule(network, 0.001, 0.99, 15, {})


def evaluate(*batches: Sample, kind: str = "validation") -> dict[str, float]:
    """Metrics of a validation or a test over some batches."""
    module = module_for(*batches)
    for index, sample in enumerate(batches):
        getattr(module, f"{kind}_step")(sample.batch(), index)
    return {k: float(v) for k, v in getattr(module, f"{kind}_metrics").compute().items()}


@pytest.mark.parametrize("kind", ["validation", "test"])
@given(batches=st.lists(samples(), min_size=1, max_size=3))
def test_metrics_are_means_over_the_loss_mask(kind: str, batches: list[Sample]) -> None:
    """However the samples are spread over batches."""
    found = evaluate(*batches, kind=kind)
    assert found["accuracy"] == pytest.approx(share_of_hits(*batches), abs=1e-6)
    assert found["loss"] == pytest.approx(mean_loss(*batches), rel=1e-5)


@given(sample=samples())
def test_training_loss_is_the_negative_log_likelihood_over_the_loss_mask(sample: Sample) -> None:
    loss = module_for(sample).loss(sample.batch())
    assert float(loss) == pytest.approx(mean_loss(sample), rel=1e-5)


@given(sample=samples(), seed=st.integers(0, 2**32 - 1))
def test_nothing_outside_the_loss_mask_matters(sample: Sample, seed: int) -> None:
    random, outside = np.random.default_rng(seed), ~sample.loss_mask
    other = Sample(sample.logits.copy(), sample.targets.copy(), sample.loss_mask)
    other.logits[outside] = random.normal(scale=100, size=(outside.sum(), TOKENS))
    other.targets[outside] = random.integers(0, TOKENS, outside.sum())
    assert evaluate(other) == evaluate(sample)
    assert module_for(other).loss(other.batch()) == module_for(sample).loss(sample.batch())


def test_targets_are_masked() -> None:
    targets, loss_mask = torch.tensor([[3, 1, 2]]), torch.tensor([[False, True, False]])
    assert masked_targets(targets, loss_mask).tolist() == [[IGNORE_INDEX, 1, IGNORE_INDEX]]
    assert targets.tolist() == [[3, 1, 2]]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_one_loss_that_is_not_finite_makes_the_mean_so(broken: float) -> None:
    """Or a model that diverged would go on training."""
    logits = np.zeros((1, 2, TOKENS), dtype=np.float32)
    targets, loss_mask = np.zeros((1, 2), dtype=np.int64), np.ones((1, 2), dtype=np.bool_)
    bad = logits.copy()
    bad[0, 0, 1] = broken
    found = evaluate(Sample(logits, targets, loss_mask), Sample(bad, targets, loss_mask))
    assert not np.isfinite(found["loss"])


def samples_to(threshold: float, *validations: tuple[float | Tensor, int]) -> int | None:
    """The samples to a threshold after validations of (accuracy, samples)."""
    metric = SamplesToThreshold(threshold)
    for accuracy, seen in validations:
        metric.update(accuracy, seen)
    return metric.reached


@pytest.mark.parametrize("accuracy", [0.99, torch.tensor(0.99), float("nan")])
def test_the_threshold_itself_is_not_a_pass(accuracy: float | Tensor) -> None:
    assert samples_to(0.99, (accuracy, 100)) is None
    assert samples_to(0.99, (accuracy, 100), (0.990001, 200)) == 200


def test_the_first_pass_is_kept_also_before_any_training() -> None:
    assert samples_to(0.9) is None
    assert samples_to(0.9, (0.5, 100), (torch.tensor(0.95), 200), (0.99, 300), (0.2, 400)) == 200
    assert samples_to(0.5, (0.6, 0)) == 0


def test_the_pass_survives_a_checkpoint() -> None:
    metric, other = SamplesToThreshold(0.9), SamplesToThreshold(0.9)
    metric.update(0.95, 5_000_000_000)
    other.load_state_dict(metric.state_dict())
    other.update(0.99, 6_000_000_000)
    assert other.reached == other.compute() == 5_000_000_000


def test_a_modules_checkpoint_keeps_the_pass_and_no_half_taken_metric() -> None:
    module, other = module_for(), module_for()
    module.samples_to_threshold.update(1.0, 30)
    other.load_state_dict(module.state_dict())
    assert other.samples_to_threshold.reached == 30
    names = [name for name in module.state_dict() if not name.startswith("network.")]
    assert names == ["samples_to_threshold.samples"]
