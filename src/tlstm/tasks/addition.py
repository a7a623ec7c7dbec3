"""Addition (Figure 4, Table 2): read two integers digit by digit, then write their sum."""

import string
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F  # noqa: N812 (torch's own convention)

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
from tlstm.utils import (
    at_least,
    share,
)

DIGITS = string.digits + string.ascii_lowercase
EASIER = len(Split)  # in the key of a random stream, where others have their split

Alignment = Literal["left", "right"]


def add_digits(first: Integers, second: Integers, base: int = 10) -> Integers:
    """Add integers of any length, column by column.

    Args:
        first: digits, most significant first, [B, n].
        second: the same, [B, n].
        base: how many different digits there are.

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
        base: how many different digits there are; the token after them is the mark.
        alignment: where a sum stands whose digits are one fewer than its positions.

    Raises:
        ValueError: if ``digits`` is below 1 or ``base`` below 2, or there is no such alignment.
    """

    def __init__(self, digits: int, base: int = 10, alignment: Alignment = "left") -> None:
        if alignment not in get_args(Alignment):
            raise ValueError(f"alignment must be left or right, got {alignment!r}")
        self.alignment = alignment
        self.digits = at_least("digits", digits, 1)
        self.base = self.mark = at_least("base", base, 2)
        self.description = f"addition of {digits}-digit integers in base {base}"
        self.radices = (base - 1, *[base] * (digits - 1)) * 2
        self.vocabulary_size = base + 1
        self.timesteps = 3 * digits + 4
        self.answer_positions = range(2 * digits + 2, 3 * digits + 3)

    def inputs(self, choices: Integers) -> Integers:
        """``- first - second`` and marks to the end, [B, T]."""
        return self.read(self.operands(choices))

    def targets(self, choices: Integers) -> Integers:
        """Marks, then the sum right after the last digit, and marks to the end, [B, T]."""
        return self.write(self.operands(choices))

    def operands(self, choices: Integers) -> Integers:
        """Digits of both operands, most significant first and that one not zero, [B, 2, n]."""
        operands = choices.reshape(-1, 2, self.digits).copy()
        operands[:, :, 0] += 1
        return operands

    def read(self, operands: Integers) -> Integers:
        """The inputs [B, T] of any operands [B, 2, n]."""
        tokens = np.full((len(operands), self.timesteps), self.mark, dtype=np.int64)
        tokens[:, 1 : self.digits + 1] = operands[:, 0]
        tokens[:, self.digits + 2 : 2 * self.digits + 2] = operands[:, 1]
        return tokens

    def write(self, operands: Integers) -> Integers:
        """The targets [B, T] of any operands [B, 2, n]."""
        tokens = np.full((len(operands), self.timesteps), self.mark, dtype=np.int64)
        start, stop = self.answer_positions.start, self.answer_positions.stop
        total = add_digits(operands[:, 0], operands[:, 1], self.base)
        carried = total[:, 0] > 0
        shift = 1 if self.alignment == "right" else 0
        tokens[carried, start:stop] = total[carried]
        tokens[~carried, start + shift : stop - 1 + shift] = total[~carried, 1:]
        return tokens

    def token_name(self, token: int) -> str:
        """The digit, beyond 9 a letter and beyond z a number, or ``-``."""
        if token == self.mark:
            return "-"
        return DIGITS[token] if token < len(DIGITS) else str(token)


class EasierAddition(GeneratedDataset):
    """Training samples that are easier than the task's, in one of two ways or in both [ours].

    From the third to the last but one, a digit of the task's sums tells nothing of any single digit
    of an operand, as the other operand makes each outcome as likely. With zeros, it now and then is
    a copy of one.

    Args:
        task: what the samples are otherwise.
        fewest_digits: of an operand. Their number is uniform between this and the task's, the same
            in both; marks fill the sample up to the task's length. 0: always the task's.
        most_zeros: with what probability a digit becomes 0 in one sample is uniform between 0 and
            this, from 0 to 1.
        seed: 0..2**64-1; it chooses the order in which the samples come.
        samples_per_epoch: what ``len`` says; larger indices are as good.
    """

    def __init__(
        self,
        task: AdditionTask,
        fewest_digits: int,
        most_zeros: float,
        seed: int,
        samples_per_epoch: int,
    ) -> None:
        super().__init__(task, Split.TRAINING, seed, samples_per_epoch)
        self._whole = task
        self._tasks = [
            AdditionTask(digits, task.base, task.alignment)
            for digits in range(fewest_digits or task.digits, task.digits + 1)
        ]
        self._most_zeros = most_zeros
        self._easing = RandomStreams(seed, EASIER)

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        operands = self._whole.operands(self._choices(indices))
        numbers = np.stack([self._easing.numbers(index, 2 + operands[0].size) for index in indices])
        kinds = numbers[:, 0] % len(self._tasks)
        samples: dict[int, Batch] = {}
        for kind in np.unique(kinds):
            rows = np.flatnonzero(kinds == kind)
            easier = self._easier(self._tasks[kind], operands[rows], numbers[rows, 1:])
            samples |= zip(rows, easier, strict=True)
        return [samples[row] for row in range(len(indices))]

    def _easier(
        self, task: AdditionTask, operands: Integers, numbers: npt.NDArray[np.uint64]
    ) -> list[Batch]:
        """The samples of a task that operands [B, 2, n] of the whole one become."""
        operands = operands[:, :, : task.digits]
        if self._most_zeros:
            operands = self._with_zeros(task, operands, numbers / 2**64)
        after = 0, self._whole.timesteps - task.timesteps
        return [
            Batch(
                F.pad(inputs, after, value=task.mark),
                F.pad(targets, after, value=task.mark),
                F.pad(answer, after),
            )
            for inputs, targets, answer in task.batches(task.read(operands), task.write(operands))
        ]

    def _with_zeros(
        self, task: AdditionTask, operands: Integers, uniform: npt.NDArray[np.float64]
    ) -> Integers:
        """Operands [B, 2, n] with zeros, where that makes no sample of another split."""
        chance = self._most_zeros * uniform[:, :1]
        digits = uniform[:, 1 : 1 + operands[0].size]
        easier = np.where(digits < chance, 0, operands.reshape(digits.shape))
        easier = easier.reshape(operands.shape)
        training = [split_of(row) is Split.TRAINING for row in task.read(easier)]
        return np.where(np.reshape(training, (-1, 1, 1)), easier, operands)


class AdditionDataModule(GeneratedDataModule):
    """Addition of two integers of ``digits`` digits each [paper].

    One digit a step, ``-`` between the operands and as padding; the sum is read out right after the
    last digit, most significant digit first; 3n+4 steps:

    >>> import numpy as np
    >>> task = AdditionTask(digits=3)
    >>> choices = np.array([[0, 2, 3, 8, 0, 0]])  # first digits count from 1
    >>> print(task.render(task.inputs(choices)[0]))
    - 1 2 3 - 9 0 0 - - - - -
    >>> print(task.render(task.targets(choices)[0]))
    - - - - - - - - 1 0 2 3 -

    The answer is n+1 positions, 8..11 here: a sum with no carry out has n digits and one more ``-``
    after them [ours], or before them with ``alignment="right"``. Operands are uniform over the
    integers of n digits with a nonzero first digit [ours]. Tokens 0..9 are the digits, 10 is ``-``;
    in another base, as many as it has.

    Args:
        digits: number n of digits of each operand; 15 in the paper.
        base: how many different digits there are; 10 in the paper.
        batch_size: training samples of all devices together per step; 15 in the paper.
        samples_per_epoch: training samples from one validation to the next, a multiple of
            ``batch_size``.
        validation_samples: size of the validation set, the same for every seed.
        test_samples: size of the test set, the same for every seed.
        seed: 0..2**64-1; chooses the training samples.
        num_workers: processes that draw training samples ahead; 0 draws them in the trainer's own.
        evaluation_batch_size: validation or test samples per device and step.
        alignment: of a sum within its positions, "left" or "right".
        fewest_digits: of an operand of a training sample, see :class:`EasierAddition`.
        most_zeros: of the digits of a training sample, see :class:`EasierAddition`. Neither
            changes validation and test samples.

    Raises:
        ValueError: if an argument is out of its range.
    """

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
        fewest_digits: int = 0,
        most_zeros: float = 0.0,
    ) -> None:
        self._addition = AdditionTask(digits, base, alignment)
        super().__init__(
            self._addition,
            batch_size=batch_size,
            samples_per_epoch=samples_per_epoch,
            validation_samples=validation_samples,
            test_samples=test_samples,
            seed=seed,
            num_workers=num_workers,
            evaluation_batch_size=evaluation_batch_size,
        )
        self.fewest_digits = at_least("fewest_digits", fewest_digits, 0)
        if fewest_digits > digits:
            raise ValueError(f"fewest_digits must be at most digits={digits}, got {fewest_digits}")
        self.most_zeros = share("most_zeros", most_zeros)

    @property
    def training_set(self) -> GeneratedDataset:
        """The training samples; any index from 0 on is one."""
        if not self.fewest_digits and not self.most_zeros:
            return super().training_set
        return EasierAddition(
            self._addition, self.fewest_digits, self.most_zeros, self.seed, self.samples_per_epoch
        )
