"""A small 3D tLSTM+CN learns both generated tasks, on samples that it was never trained on."""

import pytest
import torch

from tlstm.layers.tensorized import TensorizedLSTM
from tlstm.tasks.addition import AdditionDataModule
from tlstm.tasks.algorithmic import GeneratedDataModule
from tlstm.tasks.base import Batch
from tlstm.tasks.memorization import MemorizationDataModule
from tlstm.training.module import SequenceModule
from tlstm.training.network import SequenceNetwork

BATCH = 32


def train(data: GeneratedDataModule) -> SequenceModule:
    torch.manual_seed(0)
    core = TensorizedLSTM(data.input_size, 24, 2, rank=3, normalization="channel")
    module = SequenceModule(SequenceNetwork(core, data.output_size), 0.01, 0.99, BATCH, {})
    optimizer = module.configure_optimizers()
    for batch in data.train_dataloader():
        optimizer.zero_grad()
        module.loss(batch).backward()
        optimizer.step()
    return module


def best_constant(test: Batch) -> float:
    """The accuracy of the most frequent token at each position."""
    columns = test.targets[:, test.loss_mask[0]].T
    hits = sum(int(column.bincount().max()) for column in columns)
    return hits / columns.numel()


@pytest.mark.parametrize(
    ("data", "margin"),
    [
        (MemorizationDataModule(3, 6, BATCH, samples_per_epoch=200 * BATCH), 0.6),
        (AdditionDataModule(2, 4, BATCH, samples_per_epoch=300 * BATCH), 0.15),
    ],
    ids=["memorization", "addition"],
)
def test_a_3d_tlstm_with_channel_normalization_learns(
    data: GeneratedDataModule, margin: float
) -> None:
    test = Batch(*map(torch.stack, zip(*data.test_set, strict=True)))
    module = train(data)
    with torch.no_grad():
        module.test_step(test, 0)
    assert module.test_metrics.compute()["accuracy"] > best_constant(test) + margin
