"""The generated tasks: literal rows, random access, splits, devices, restarts."""

import doctest
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.metrics import mutual_info_score

from tlstm.tasks import addition, memorization
from tlstm.tasks.addition import AdditionDataModule, AdditionTask, add_digits
from tlstm.tasks.algorithmic import (
    GeneratedDataModule,
    GeneratedDataset,
    GeneratedTask,
    Integers,
    Split,
    split_of,
)
from tlstm.tasks.base import Batch, ConsecutiveSampler
from tlstm.tasks.memorization import MemorizationDataModule, MemorizationTask

DataModuleClass = type[AdditionDataModule] | type[MemorizationDataModule]
DATA_MODULES = [AdditionDataModule, MemorizationDataModule]


def digits_of(number: int) -> list[int]:
    return [int(digit) for digit in str(number)]


def addition_sample(first: int, second: int, **layout: Any) -> Batch:
    """The sample of two given operands."""
    choices = np.array([digits_of(first) + digits_of(second)])
    digits = len(str(first))
    choices[:, [0, digits]] -= 1
    return AdditionTask(digits, **layout).samples(choices)[0]


def small(seed: int = 0, num_workers: int = 0, batch_size: int = 6) -> MemorizationDataModule:
    return MemorizationDataModule(
        symbols=4,
        alphabet=9,
        batch_size=batch_size,
        samples_per_epoch=24,
        validation_samples=10,
        test_samples=7,
        seed=seed,
        num_workers=num_workers,
        evaluation_batch_size=4,
    )


def batches(data_module: GeneratedDataModule, epoch: int) -> list[Batch]:
    loader = data_module.train_dataloader()
    assert isinstance(loader.sampler, ConsecutiveSampler)
    loader.sampler.set_epoch(epoch)
    return list(loader)


def row(sample: Batch) -> bytes:
    return sample.inputs.numpy().tobytes()


def rows(loaded: Iterable[Batch]) -> list[bytes]:
    return [inputs.numpy().tobytes() for batch in loaded for inputs in batch.inputs]


def on_device(data_module: GeneratedDataModule, rank: int, world_size: int) -> GeneratedDataModule:
    data_module.trainer = Mock(global_rank=rank, world_size=world_size)
    return data_module


# Layout ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operands", "alignment", "read", "written"),
    [
        ((123, 900), "left", "- 1 2 3 - 9 0 0 - - - - -", "- - - - - - - - 1 0 2 3 -"),
        ((123, 456), "left", "- 1 2 3 - 4 5 6 - - - - -", "- - - - - - - - 5 7 9 - -"),
        ((123, 900), "right", "- 1 2 3 - 9 0 0 - - - - -", "- - - - - - - - 1 0 2 3 -"),
        ((123, 456), "right", "- 1 2 3 - 4 5 6 - - - - -", "- - - - - - - - - 5 7 9 -"),
    ],
)
def test_addition_rows_of_the_paper(
    operands: tuple[int, int], alignment: str, read: str, written: str
) -> None:
    inputs, targets, loss_mask = addition_sample(*operands, alignment=alignment)
    render = AdditionTask(3).render
    assert (render(inputs), render(targets)) == (read, written)
    assert loss_mask.nonzero().flatten().tolist() == [8, 9, 10, 11]


def test_training_operands_may_have_fewer_digits() -> None:
    data = AdditionDataModule(digits=5, min_digits=2, samples_per_epoch=3000)
    render = data.render
    lengths: Counter[int] = Counter()
    for inputs, targets, loss_mask in data.training_set.__getitems__(range(3000)):
        assert len(inputs) == len(targets) == len(loss_mask) == data.timesteps
        words = render(inputs).replace(" ", "").split("-")
        first, second = (word for word in words if word)
        assert len(first) == len(second)
        length = len(first)
        lengths[length] += 1
        assert render(inputs).replace(" ", "").startswith(f"-{first}-{second}-")
        written = render(targets).replace(" ", "")
        start = 2 * length + 2
        assert written.strip("-") == str(int(first) + int(second))
        assert written.index(written.strip("-")) == start
        assert loss_mask.nonzero().flatten().tolist() == list(range(start, start + length + 1))
    assert set(lengths) == {2, 3, 4, 5}
    assert min(lengths.values()) > 650  # 750 expected: more than four standard deviations off
    for sample in chain(data.validation_set, data.test_set):
        assert sample.loss_mask.nonzero().flatten().tolist() == list(range(12, 18))


@pytest.mark.parametrize("max_zero_fraction", [0.5, 1.0])
def test_digits_of_training_samples_may_become_zero(max_zero_fraction: float) -> None:
    data = AdditionDataModule(digits=15, max_zero_fraction=max_zero_fraction)
    plain = AdditionDataModule(digits=15).training_set
    shares, number = [], 2000
    samples = zip(
        data.training_set.__getitems__(range(number)),
        plain.__getitems__(range(number)),
        strict=True,
    )
    for sample, (before, *_) in samples:
        assert split_of(sample.inputs.numpy()) is Split.TRAINING
        changed = sample.inputs != before
        assert sample.inputs[changed].eq(0).all()
        shares.append((changed.sum() / (before.gt(0) & before.lt(10)).sum()).item())
        words = data.render(sample.inputs).replace(" ", "").split("-")
        first, second = (word for word in words if word)
        total = str(int(first) + int(second))
        assert data.render(sample.targets).replace(" ", "").strip("-") == total.zfill(15)
        assert sample.loss_mask.nonzero().flatten().tolist() == list(range(32, 48))
    # a sixteenth and a sixteenth of the samples would be of another split, and stay as they were
    unchanged = sum(share == 0 for share in shares) / number
    assert 0.125 < unchanged < 0.25
    assert np.mean(shares) / (1 - 0.125) == pytest.approx(max_zero_fraction / 2, abs=0.03)
    assert max(shares) > 0.9 * max_zero_fraction
    for sample in chain(data.validation_set, data.test_set):
        assert sample.inputs[1] > 0


@pytest.mark.parametrize(
    ("max_zero_fraction", "least", "most"), [(0.0, 0.0, 0.005), (1.0, 0.2, 0.3)]
)
def test_what_a_digit_of_the_sum_tells_of_a_single_input(
    max_zero_fraction: float, least: float, most: float
) -> None:
    """Mutual information in nats, from the third digit to the last but one."""
    data = AdditionDataModule(digits=15, max_zero_fraction=max_zero_fraction)
    samples = data.training_set.__getitems__(range(20_000))
    inputs = torch.stack([sample.inputs for sample in samples]).numpy()
    targets = torch.stack([sample.targets for sample in samples]).numpy()
    read = [*range(1, 16), *range(17, 32)]
    for position in range(34, 46):
        told = max(mutual_info_score(inputs[:, one], targets[:, position]) for one in read)
        assert least <= told < most


@pytest.mark.parametrize("easier", [{"min_digits": 1}, {"max_zero_fraction": 1.0}])
def test_easier_samples_are_the_same_however_they_are_asked_for(easier: dict[str, Any]) -> None:
    data = AdditionDataModule(digits=4, seed=3, **easier)
    together = data.training_set.__getitems__(range(50))
    again = AdditionDataModule(digits=4, seed=3, **easier).training_set
    assert [row(sample) for sample in together] == [row(again[index]) for index in range(50)]
    other = AdditionDataModule(digits=4, seed=4, **easier).training_set
    assert [row(sample) for sample in together] != [row(other[index]) for index in range(50)]


def test_memorization_rows_of_the_paper() -> None:
    task = MemorizationTask(symbols=5, alphabet=64)
    inputs, targets, loss_mask = task.samples(np.array([[0, 1, 2, 2, 1]]))[0]
    assert task.render(inputs) == "- a b c c b - - - - - - -"
    assert task.render(targets) == "- - - - - - a b c c b - -"
    assert loss_mask.nonzero().flatten().tolist() == [6, 7, 8, 9, 10]


@pytest.mark.parametrize("module", [addition, memorization])
def test_docstrings(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted >= 5
    assert result.failed == 0


def test_every_symbol_of_an_alphabet_has_its_own_name() -> None:
    for alphabet in (1, 64, 65, 300):
        task = MemorizationTask(symbols=2, alphabet=alphabet)
        names = [task.render([token]) for token in range(task.vocabulary_size)]
        assert len(set(names)) == alphabet + 1
        assert names[-1] == "-"
    assert MemorizationTask(symbols=2, alphabet=65).render([0, 64, 65]) == "0 64 -"


@pytest.mark.parametrize(
    ("data_module", "vocabulary_size", "timesteps"),
    [
        (AdditionDataModule(), 11, 49),
        (AdditionDataModule(digits=3), 11, 13),
        (MemorizationDataModule(), 65, 43),
        (MemorizationDataModule(symbols=5, alphabet=200), 201, 13),
    ],
)
def test_shapes(data_module: GeneratedDataModule, vocabulary_size: int, timesteps: int) -> None:
    assert data_module.vocabulary_size == vocabulary_size
    assert data_module.timesteps == timesteps
    batch = next(iter(data_module.train_dataloader()))
    assert isinstance(batch, Batch)
    assert [part.shape for part in batch] == [(15, timesteps)] * 3
    assert [part.dtype for part in batch] == [torch.int64, torch.int64, torch.bool]
    assert batch.inputs.min() >= 0
    assert batch.inputs.max() == vocabulary_size - 1
    assert data_module.render(batch.inputs[0]).count(" ") == timesteps - 1


# Arithmetic --------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.data())
def test_sums_are_those_of_python(digits: int, data: st.DataObject) -> None:
    operand = st.integers(10 ** (digits - 1), 10**digits - 1)
    first, second = data.draw(operand), data.draw(operand)
    inputs, targets, loss_mask = addition_sample(first, second)
    render = AdditionTask(digits).render
    assert render(inputs).replace(" ", "").strip("-") == f"{first}-{second}"
    written = render(targets[loss_mask]).replace(" ", "")
    assert written == str(first + second).ljust(digits + 1, "-")
    assert set(render(targets[~loss_mask]).split()) == {"-"}


@given(st.integers(2, 36), st.integers(1, 12))
def test_sums_in_any_base_are_those_of_python(base: int, digits: int) -> None:
    if (base - 1) * base ** (digits - 1) < 20:
        return  # too few different samples for three splits
    for inputs, targets, loss_mask in AdditionDataModule(digits, base=base).validation_set[:5]:
        render = AdditionTask(digits, base).render
        operands = render(inputs).replace(" ", "").strip("-").split("-")
        written = render(targets[loss_mask]).replace(" ", "").rstrip("-")
        assert [len(operand) for operand in operands] == [digits, digits]
        assert int(written, base) == sum(int(operand, base) for operand in operands)


@pytest.mark.parametrize("digits", [1, 3, 15, 18, 19, 40])
def test_longest_carry(digits: int) -> None:
    first, second = 10**digits - 1, 10 ** (digits - 1)
    total = add_digits(np.array([digits_of(first)]), np.array([digits_of(second)]))
    assert total[0].tolist() == digits_of(first + second)
    everywhere = add_digits(np.array([digits_of(first)]), np.array([digits_of(first)]))
    assert everywhere[0].tolist() == digits_of(2 * first)


# Random access -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "split", "rendered"),
    [
        (AdditionTask(4), Split.TRAINING, ["- 6 8 9 6 - 4 5 7 6", "- 1 9 3 6 - 6 2 2 7"]),
        (AdditionTask(4), Split.VALIDATION, ["- 2 5 5 7 - 1 0 2 9", "- 1 9 0 0 - 5 6 7 5"]),
        (AdditionTask(4), Split.TEST, ["- 3 8 1 9 - 7 3 0 6", "- 1 6 8 0 - 6 2 1 7"]),
        (MemorizationTask(5, 64), Split.TRAINING, ["- B Y 5 C d", "- K i 3 4 1"]),
        (MemorizationTask(5, 64), Split.VALIDATION, ["- 8 + l h F", "- + i k m C"]),
        (MemorizationTask(5, 64), Split.TEST, ["- I y O I c", "- g 3 H L m"]),
    ],
)
def test_first_samples_of_seed_0_stay_as_they_are(
    task: GeneratedTask, split: Split, rendered: list[str]
) -> None:
    samples = GeneratedDataset(task, split, seed=0, samples_per_epoch=2).__getitems__([0, 1])
    assert [task.render(sample.inputs).rstrip(" -") for sample in samples] == rendered


@pytest.mark.parametrize(
    ("easier", "rendered"),
    [
        ({"max_zero_fraction": 1.0}, ["- 6 8 9 6 3 - 4 7 6 5 0", "- 0 9 0 0 1 - 0 0 7 0 9"]),
        ({"min_digits": 1}, ["- 6 8 9 6 - 4 7 6 5", "- 1 9 - 1 2"]),
    ],
)
def test_first_easier_samples_of_seed_0_stay_as_they_are(
    easier: dict[str, Any], rendered: list[str]
) -> None:
    """A recorded run is repeated with the samples that it had."""
    data = AdditionDataModule(digits=5, **easier)
    samples = data.training_set.__getitems__([0, 1])
    assert [data.render(sample.inputs).rstrip(" -") for sample in samples] == rendered


def test_a_sample_depends_on_its_index_only() -> None:
    dataset = GeneratedDataset(MemorizationTask(4, 9), Split.VALIDATION, 3, samples_per_epoch=10)
    together = dataset.__getitems__([5, 2**63, 0, 5])
    alone = [dataset[index] for index in (5, 2**63, 0, 5)]
    for one, other in zip(together, alone, strict=True):
        assert all(map(torch.equal, one, other))
    assert row(together[0]) != row(together[1])
    assert len(dataset) == 10


@pytest.mark.parametrize("data_module_class", DATA_MODULES)
def test_seeds_differ_in_training_and_share_what_is_held_out(
    data_module_class: DataModuleClass,
) -> None:
    modules = [data_module_class(seed=seed) for seed in (0, 1, 2**64 - 1)]
    training = [set(rows(batches(data_module, 0))) for data_module in modules]
    assert not training[0] & training[1]
    assert not training[0] & training[2]
    assert rows(batches(data_module_class(), 0)) == rows(batches(modules[0], 0))
    for split in ("val_dataloader", "test_dataloader"):
        held_out = [rows(getattr(data_module, split)()) for data_module in modules]
        assert held_out[0] == held_out[1] == held_out[2]
        assert len(set(held_out[0])) == 1000


def test_global_random_states_are_not_read() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    first = rows(batches(small(), 0))
    torch.manual_seed(1)
    np.random.seed(1)
    assert rows(batches(small(), 0)) == first


def test_workers_do_not_change_the_samples() -> None:
    assert rows(batches(small(num_workers=2), 3)) == rows(batches(small(), 3))


def test_epochs_go_on_without_repeating() -> None:
    data_module = small()
    loader = data_module.train_dataloader()
    assert isinstance(loader.sampler, ConsecutiveSampler)
    dataset = GeneratedDataset(data_module.task, Split.TRAINING, 0, samples_per_epoch=24)
    for epoch in (0, 1, 2, 7):
        loader.sampler.set_epoch(epoch)
        assert list(loader.sampler) == list(range(24 * epoch, 24 * (epoch + 1)))
        expected = dataset.__getitems__(range(24 * epoch, 24 * (epoch + 1)))
        assert rows(loader) == list(map(row, expected))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_devices_together_read_the_batches_of_one(world_size: int) -> None:
    expected = batches(small(), 2)
    shards = [batches(on_device(small(), rank, world_size), 2) for rank in range(world_size)]
    assert all(len(shard) == len(expected) == 4 for shard in shards)
    for step, batch in enumerate(expected):
        parts = [shard[step].inputs for shard in shards]
        assert torch.equal(torch.stack(parts, dim=1).flatten(0, 1), batch.inputs)


@pytest.mark.parametrize("world_size", [2, 3])
def test_devices_share_validation_without_repeats_and_test_all(world_size: int) -> None:
    modules = [on_device(small(), rank, world_size) for rank in range(world_size)]
    shards = [rows(data_module.val_dataloader()) for data_module in modules]
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert Counter(chain.from_iterable(shards)) == Counter(rows(small().val_dataloader()))
    for data_module in modules:
        assert rows(data_module.test_dataloader()) == rows(small().test_dataloader())
    assert len(modules[0].test_set) == 7


# Splits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "data_module"),
    [
        (MemorizationTask(2, 10), MemorizationDataModule(2, 10)),
        (AdditionTask(1), AdditionDataModule(1)),
    ],
)
def test_nothing_held_out_is_ever_trained_on(
    task: GeneratedTask, data_module: GeneratedDataModule
) -> None:
    held_out = {
        split: {
            row(GeneratedDataset(task, split, seed, 1)[index])
            for seed in range(3)
            for index in range(300)
        }
        for split in (Split.VALIDATION, Split.TEST)
    }
    assert set(map(row, data_module.validation_set)) <= held_out[Split.VALIDATION]
    training: set[bytes] = set()
    for seed in range(4):
        samples = GeneratedDataset(task, Split.TRAINING, seed, 1).__getitems__(range(5000))
        training.update(map(row, samples))
    assert not training & held_out[Split.VALIDATION]
    assert not training & held_out[Split.TEST]
    assert not held_out[Split.VALIDATION] & held_out[Split.TEST]
    # the brute force has seen the whole task
    assert len(training) + sum(map(len, held_out.values())) == np.prod(task.radices)


def test_shares_of_the_splits() -> None:
    counts = Counter(split_of(np.array([number])) for number in range(16000))
    assert counts[Split.VALIDATION] == pytest.approx(1000, abs=150)
    assert counts[Split.TEST] == pytest.approx(1000, abs=150)


@pytest.mark.parametrize(("symbols", "alphabet"), [(1, 1), (20, 1), (2, 4), (1, 2)])
def test_a_task_too_small_for_three_splits_is_refused(symbols: int, alphabet: int) -> None:
    with pytest.raises(ValueError, match=f"only {alphabet**symbols} different samples, none for"):
        MemorizationDataModule(symbols=symbols, alphabet=alphabet)


def chi_square(values: Integers, categories: Integers) -> float:
    observed = np.array([(values == category).sum() for category in categories])
    assert observed.sum() == values.size
    expected = values.size / len(categories)
    return float(((observed - expected) ** 2 / expected).sum())


@pytest.mark.parametrize(
    ("task", "position", "categories"),
    [
        (AdditionTask(15), 1, np.arange(1, 10)),  # leading digits
        (AdditionTask(15), 17, np.arange(1, 10)),
        (AdditionTask(15), 2, np.arange(10)),
        (AdditionTask(15), 31, np.arange(10)),
        (MemorizationTask(20, 64), 1, np.arange(64)),
        (MemorizationTask(20, 64), 20, np.arange(64)),
    ],
)
def test_tokens_are_uniform(task: GeneratedTask, position: int, categories: Integers) -> None:
    samples = GeneratedDataset(task, Split.TRAINING, 0, 1).__getitems__(range(10_000))
    values = np.array([sample.inputs[position].item() for sample in samples])
    freedom = len(categories) - 1
    assert chi_square(values, categories) < freedom + 5 * np.sqrt(2 * freedom)


def test_symbols_of_a_sample_are_independent() -> None:
    task = MemorizationTask(2, 8)
    samples = GeneratedDataset(task, Split.TRAINING, 0, 1).__getitems__(range(10_000))
    pairs = np.array([sample.inputs[1:3].tolist() for sample in samples])
    trained = [
        [first, second]
        for first in range(8)
        for second in range(8)
        if split_of(task.inputs(np.array([[first, second]]))[0]) is Split.TRAINING
    ]
    values, categories = pairs @ [8, 1], np.array(trained) @ [8, 1]
    freedom = len(categories) - 1
    assert chi_square(values, categories) < freedom + 5 * np.sqrt(2 * freedom)


# Arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_module_class", DATA_MODULES)
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("samples_per_epoch", 0),
        ("samples_per_epoch", 3001),
        ("validation_samples", 0),
        ("test_samples", 0),
        ("seed", -1),
        ("seed", 2**64),
        ("seed", None),
        ("num_workers", -1),
        ("evaluation_batch_size", 0),
    ],
)
def test_arguments_out_of_range(
    data_module_class: DataModuleClass, argument: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=rf"^{argument} must be .*got {value}$"):
        data_module_class(**{argument: value})


def test_sizes_out_of_range() -> None:
    with pytest.raises(ValueError, match="digits must be an integer of at least 1, got 0"):
        AdditionDataModule(digits=0)
    with pytest.raises(ValueError, match="symbols must be an integer of at least 1, got 0"):
        MemorizationDataModule(symbols=0)
    with pytest.raises(ValueError, match="alphabet must be an integer of at least 1, got True"):
        MemorizationDataModule(alphabet=True)
    with pytest.raises(ValueError, match="alignment must be left or right, got 'middle'"):
        AdditionDataModule(alignment="middle")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="min_digits must be at most digits=4, got 5"):
        AdditionDataModule(digits=4, min_digits=5)
    with pytest.raises(ValueError, match=r"min_digits must be an integer .* got -1"):
        AdditionDataModule(min_digits=-1)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), "half", True, None])
def test_the_max_zero_fraction_are_a_share(value: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"^max_zero_fraction must be a number from 0 to 1, got {value!r}"
    ):
        AdditionDataModule(max_zero_fraction=value)


def test_devices_that_cannot_share_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^batch_size must be a multiple .* \(4\), got 6$"):
        on_device(small(), 0, 4).train_dataloader()
    with pytest.raises(ValueError, match=r"^validation_samples must be at least .* \(11\), got 10"):
        on_device(small(), 0, 11).val_dataloader()


# The trainer -------------------------------------------------------------------------------------


class Recorder(LightningModule):
    """Learns nothing; keeps every batch that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained: list[Batch] = []
        self.validated: list[Batch] = []
        self.tested: list[Batch] = []

    def training_step(self, batch: Batch) -> torch.Tensor:
        self.trained.append(batch)
        return self.weight * 1.0

    def validation_step(self, batch: Batch) -> None:
        self.validated.append(batch)

    def test_step(self, batch: Batch) -> None:
        self.tested.append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(epochs: int, checkpoint: ModelCheckpoint) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[checkpoint],
    )


def expected_rows(epochs: range) -> list[bytes]:
    return [inputs for epoch in epochs for inputs in rows(batches(small(), epoch))]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("after_training", [True, False])
def test_training_goes_on_where_it_ended(
    tmp_path: Path, num_workers: int, after_training: bool
) -> None:
    """From a checkpoint after the epoch's training, and from one after its validation."""

    def checkpoint() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path, "saved", save_on_train_epoch_end=after_training)

    first, resumed = Recorder(), Recorder()
    trainer(2, checkpoint()).fit(first, datamodule=small(num_workers=num_workers))
    assert rows(first.trained) == expected_rows(range(2))
    trainer(4, checkpoint()).fit(
        resumed,
        datamodule=small(num_workers=num_workers),
        ckpt_path=tmp_path / "saved.ckpt",
        weights_only=True,
    )
    assert rows(resumed.trained) == expected_rows(range(2, 4))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_trainer_validates_and_tests_every_sample_once(tmp_path: Path) -> None:
    recorder, data_module = Recorder(), small()
    runner = trainer(1, ModelCheckpoint(tmp_path))
    runner.validate(recorder, datamodule=data_module, verbose=False)
    runner.test(recorder, datamodule=data_module, verbose=False)
    assert [len(batch.inputs) for batch in recorder.validated] == [4, 4, 2]
    assert [len(batch.inputs) for batch in recorder.tested] == [4, 3]
    assert isinstance(recorder.tested[0], Batch)
    assert rows(recorder.tested) == list(map(row, data_module.test_set))
