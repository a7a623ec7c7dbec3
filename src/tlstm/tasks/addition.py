"""Addition (Figure 4, Table 2): read two integers digit by digit, then write their sum."""

import string
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from tlstm.tasks.algorithmic import (
    GeneratedDataModule,
    GeneratedDataset,
    GeneratedTask,
    Integers,
    RandomStreams,
    Split,
    split_of,
)
from tlstm.tasks.base import Batch
from tlstm.tasks.sampling import OperandForm, Sampling
from tlstm.utils import at_least, share, true_or_false

DIGITS = string.digits + string.ascii_lowercase
# In the key of a random stream, in the place of a split
EASIER, FORMS = len(Split), len(Split) + 1
LEADING = 6  # digits of a number of which the distribution of log-uniform ones can be told

Alignment = Literal["left", "right"]


def add_digits(first: Integers, second: Integers, base: int = 10) -> Integers:
    """Add integers of any length, column by column.

    Args:
        first: digits, most significant first, [B, n].
        second: the same, [B, n].
        base: number of different digits.

    Returns:
        Digits of the sums, most significant first, [B, n+1]; the first is the carry out, 0 or 1.
    """
    columns = first + second
    total = np.empty((columns.shape[0], columns.shape[1] + 1), dtype=np.int64)
    carry = np.zeros(columns.shape[0], dtype=np.int64)
    for place in reversed(range(columns.shape[1])):
        carry, total[:, place + 1] = np.divmod(columns[:, place] + carry, base)
    total[:, 0] = carry
    return total


class AdditionTask(GeneratedTask):
    """The layout of a sample; see :class:`AdditionDataModule`.

    Args:
        digits: number n of digits of each operand.
        base: number of different digits; the token after them is the mark.
        alignment: "left" or "right", for sums with one digit fewer than positions.
        least_significant_first: True to read and write all numbers from their last digit on.

    Raises:
        ValueError: ``digits`` is below 1, ``base`` below 2, or ``alignment`` another word.
    """

    def __init__(
        self,
        digits: int,
        base: int = 10,
        alignment: Alignment = "left",
        least_significant_first: bool = False,
    ) -> None:
        if alignment not in get_args(Alignment):
            raise ValueError(f"alignment must be left or right, got {alignment!r}")
        self.alignment = alignment
        first = true_or_false("least_significant_first", least_significant_first)
        self.least_significant_first = first
        self.digits = at_least("digits", digits, 1)
        self.base = self.mark = at_least("base", base, 2)
        self.description = f"addition of {digits}-digit integers in base {base}"
        self.radices = (base - 1, *[base] * (digits - 1)) * 2
        self.vocabulary_size = base + 1
        self.timesteps = 3 * digits + 4
        self.answer_positions = range(2 * digits + 2, 3 * digits + 3)

    def inputs(self, choices: Integers) -> Integers:
        """Return ``- first - second`` and marks to the end, [B, T]."""
        return self.read(self.operands(choices))

    def targets(self, choices: Integers) -> Integers:
        """Return marks, the sum right after the last digit, and marks to the end, [B, T]."""
        return self.write(self.operands(choices))

    def operands(self, choices: Integers) -> Integers:
        """Return the digits of both operands, most significant first and not zero, [B, 2, n]."""
        operands = choices.reshape(-1, 2, self.digits).copy()
        operands[:, :, 0] += 1
        return operands

    def choices(self, operands: Integers) -> Integers:
        """Return the choices of operands [B, 2, n]: the inverse; a first zero is −1 there."""
        choices = operands.copy()
        choices[:, :, 0] -= 1
        return choices.reshape(len(operands), -1)

    def read(self, operands: Integers) -> Integers:
        """Return the inputs [B, T] of operands [B, 2, n], which may begin with zeros."""
        operands = self._in_order(operands)
        tokens = np.full((len(operands), self.timesteps), self.mark, dtype=np.int64)
        tokens[:, 1 : self.digits + 1] = operands[:, 0]
        tokens[:, self.digits + 2 : 2 * self.digits + 2] = operands[:, 1]
        return tokens

    def write(self, operands: Integers) -> Integers:
        """Return the targets [B, T] of operands [B, 2, n], which may begin with zeros."""
        tokens = np.full((len(operands), self.timesteps), self.mark, dtype=np.int64)
        start, stop = self.answer_positions.start, self.answer_positions.stop
        total = add_digits(operands[:, 0], operands[:, 1], self.base)
        carried = total[:, 0] > 0
        shift = 1 if self.alignment == "right" else 0
        tokens[carried, start:stop] = self._in_order(total[carried])
        of_uncarried = slice(start + shift, stop - 1 + shift)
        tokens[~carried, of_uncarried] = self._in_order(total[~carried, 1:])
        return tokens

    def _in_order(self, digits: Integers) -> Integers:
        """Return digits in the order of reading and writing, from most significant ones first."""
        return digits[..., ::-1] if self.least_significant_first else digits

    def token_name(self, token: int) -> str:
        """Return the digit, beyond 9 a letter and beyond z a number, or ``-``."""
        if token == self.mark:
            return "-"
        return DIGITS[token] if token < len(DIGITS) else str(token)


class AdditionTrainingSet(GeneratedDataset):
    """Training samples whose operands may be drawn in another way, shortened or partly zero [ours].

    Choices are drawn as `sampling` says, operands are made of them, and then made easier. From the
    third to the last but one, a digit of the task's sums is independent of any single digit of an
    operand, because the other operand makes every outcome equally likely. With zeros, it is
    sometimes a copy of one.

    Args:
        task: the samples at full length.
        min_digits: of an operand. Their number is uniform between this and the task's, the same
            in both; marks fill the sample up to the task's length. 0: always the task's.
        max_zero_fraction: the probability that a digit of a sample becomes 0 is uniform between 0
            and this, from 0 to 1.
        seed: 0..2**64-1; chooses the order of the samples.
        samples_per_epoch: value of ``len``; larger indices are valid.
        sampling: how choices and operands are drawn.
        accuracy: of the last validation, for the sampling.
    """

    def __init__(
        self,
        task: AdditionTask,
        min_digits: int,
        max_zero_fraction: float,
        seed: int,
        samples_per_epoch: int,
        sampling: Sampling,
        accuracy: Tensor,
    ) -> None:
        super().__init__(task, Split.TRAINING, seed, samples_per_epoch, sampling, accuracy)
        self._whole = task
        self._tasks = [
            AdditionTask(digits, task.base, task.alignment, task.least_significant_first)
            for digits in range(min_digits or task.digits, task.digits + 1)
        ]
        self._max_zero_fraction = max_zero_fraction
        self._easing, self._forms = RandomStreams(seed, EASIER), RandomStreams(seed, FORMS)

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        if len(self._tasks) == 1 and not self._max_zero_fraction:
            return super().__getitems__(indices)
        operands = self._whole.operands(self._choices(indices))
        width = 2 + operands[0].size
        numbers = self._numbers(self._easing, indices, 0, width)
        kinds = numbers[:, 0] % len(self._tasks)
        samples: dict[int, Batch] = {}
        for kind in np.unique(kinds):
            rows = np.flatnonzero(kinds == kind)
            easier = self._easier(self._tasks[kind], operands[rows], numbers[rows, 1:])
            samples |= zip(rows, easier, strict=True)
        return [samples[row] for row in range(len(indices))]

    def _attempt(self, indices: Sequence[int], attempt: int) -> Integers:
        """Draw the choices of the n-th attempt of each stream, with operands of any form."""
        choices = super()._attempt(indices, attempt)
        if self.sampling.operands == "uniform":
            return choices
        uniform = self._numbers(self._forms, indices, attempt, 4).reshape(-1, 2, 2) / 2**64
        operands = self._whole.operands(choices)
        return self._whole.choices(in_form(operands, uniform, self.sampling.operands, self._whole))

    def _easier(
        self, task: AdditionTask, operands: Integers, numbers: npt.NDArray[np.uint64]
    ) -> list[Batch]:
        """Make samples of a shorter task from operands [B, 2, n] of the whole one."""
        operands = operands[:, :, : task.digits]
        if self._max_zero_fraction:
            operands = self._with_zeros(task, operands, numbers / 2**64)
        samples = task.batches(task.read(operands), task.write(operands))
        after = 0, self._whole.timesteps - task.timesteps
        return [
            Batch(
                F.pad(inputs, after, value=task.mark),
                F.pad(targets, after, value=task.mark),
                F.pad(loss_mask, after),
            )
            for inputs, targets, loss_mask in samples
        ]

    def _with_zeros(
        self, task: AdditionTask, operands: Integers, uniform: npt.NDArray[np.float64]
    ) -> Integers:
        """Set digits of operands [B, 2, n] to zero where the sample stays in the training split."""
        chance = self._max_zero_fraction * uniform[:, :1]
        digits = uniform[:, 1 : 1 + operands[0].size]
        easier = np.where(digits < chance, 0, operands.reshape(digits.shape))
        easier = easier.reshape(operands.shape)
        training = [split_of(row) is Split.TRAINING for row in task.read(easier)]
        return np.where(np.reshape(training, (-1, 1, 1)), easier, operands)


def in_form(
    operands: Integers, uniform: npt.NDArray[np.float64], form: OperandForm, task: AdditionTask
) -> Integers:
    """Return padded numbers of 1 to n digits, each length as likely, from operands [B, 2, n].

    A padded number keeps the first digit, which is no zero, and the last ones of its operand. The
    first digits of a log-uniform one are those of base**u with a uniform u (Benford's law).

    Args:
        operands: most significant digit first.
        uniform: numbers from 0 to 1 for each operand, of its length and first digits, [B, 2, 2].
        form: "padded" or "log_uniform".
        task: with the base and n.
    """
    digits, places = task.digits, np.arange(task.digits)
    start = np.minimum(np.floor(uniform[:, :, :1] * digits), digits - 1).astype(np.int64)
    padded = np.where(places > start, operands, 0)
    padded = np.where(places == start, operands[:, :, :1], padded)
    if form == "padded":
        return padded
    mantissa = task.base ** uniform[:, :, 1:]
    for place in range(min(LEADING, digits)):
        digit = np.minimum(np.floor(mantissa), task.base - 1)
        padded = np.where(places == start + place, digit.astype(np.int64), padded)
        mantissa = (mantissa - digit) * task.base
    return padded


class AdditionDataModule(GeneratedDataModule):
    """Addition of two integers of ``digits`` digits each [paper].

    One digit a timestep, with ``-`` between the operands and as padding. The sum follows right
    after the last digit, most significant digit first; 3n+4 timesteps:

    >>> import numpy as np
    >>> task = AdditionTask(digits=3)
    >>> choices = np.array([[0, 2, 3, 8, 0, 0]])  # first digits count from 1
    >>> print(task.render(task.inputs(choices)[0]))
    - 1 2 3 - 9 0 0 - - - - -
    >>> print(task.render(task.targets(choices)[0]))
    - - - - - - - - 1 0 2 3 -

    The answer is n+1 positions, 8..11 here: a sum with no carry out has n digits and one more ``-``
    after them [ours], or before them with ``alignment="right"``. Operands are uniform over the
    integers of n digits with a nonzero first digit [ours]. Tokens 0..base-1 are the digits and
    token ``base`` is ``-``.

    Args:
        digits: number n of digits of each operand; 15 in the paper.
        base: number of different digits; 10 in the paper.
        batch_size: training samples of all devices together per step; 15 in the paper.
        samples_per_epoch: training samples from one validation to the next, a multiple of
            ``batch_size``.
        validation_samples: size of the validation set, the same for every seed.
        test_samples: size of the test set, the same for every seed.
        seed: 0..2**64-1; chooses the training samples.
        num_workers: processes that draw training samples ahead; 0 draws them in the trainer's.
        evaluation_batch_size: validation or test samples per device and step.
        alignment: "left" or "right", of a sum within its positions.
        min_digits: of an operand of a training sample, see :class:`AdditionTrainingSet`.
        max_zero_fraction: of the digits of a training sample, see :class:`AdditionTrainingSet`.
        sampling: settings of `tlstm.tasks.sampling.Sampling` for training samples. None of these
            three changes validation and test samples.
        least_significant_first: True to read and write all numbers from their last digit on.

    Raises:
        ValueError: if an argument is out of its range.
    """

    operand_forms = get_args(OperandForm)

    def __init__(
        self,
        digits: int = 15,
        base: int = 10,
        batch_size: int = 15,
        samples_per_epoch: int = 3000,
        validation_samples: int = 1000,
        test_samples: int = 1000,
        seed: int = 0,
        num_workers: int = 0,
        evaluation_batch_size: int = 100,
        alignment: Alignment = "left",
        min_digits: int = 0,
        max_zero_fraction: float = 0.0,
        sampling: Mapping[str, Any] | None = None,
        least_significant_first: bool = False,
    ) -> None:
        self._addition = AdditionTask(digits, base, alignment, least_significant_first)
        super().__init__(
            self._addition,
            batch_size=batch_size,
            samples_per_epoch=samples_per_epoch,
            validation_samples=validation_samples,
            test_samples=test_samples,
            seed=seed,
            num_workers=num_workers,
            evaluation_batch_size=evaluation_batch_size,
            sampling=sampling,
        )
        self.min_digits = at_least("min_digits", min_digits, 0)
        if min_digits > digits:
            raise ValueError(f"min_digits must be at most digits={digits}, got {min_digits}")
        self.max_zero_fraction = share("max_zero_fraction", max_zero_fraction)

    @property
    def training_set(self) -> GeneratedDataset:
        """The training samples, with any index from 0 on."""
        return AdditionTrainingSet(
            self._addition,
            self.min_digits,
            self.max_zero_fraction,
            self.seed,
            self.samples_per_epoch,
            self.sampling,
            self._accuracy,
        )
