"""Memorization (Figure 4, Table 2): read a sequence of tokens, then write it again."""

import string
from collections.abc import Mapping
from typing import Any

import numpy as np

from tlstm.tasks.algorithmic import GeneratedDataModule, GeneratedTask, Integers
from tlstm.utils import at_least

LETTERS = string.ascii_letters + string.digits + "+/"  # 64 names, as many as the paper's alphabet


class MemorizationTask(GeneratedTask):
    """The layout of a sample; see :class:`MemorizationDataModule`.

    Args:
        symbols: length n of the sequence to memorize.
        alphabet: number of different tokens in it.

    Raises:
        ValueError: an argument is below 1.
    """

    def __init__(self, symbols: int, alphabet: int) -> None:
        at_least("symbols", symbols, 1)
        at_least("alphabet", alphabet, 1)
        self.alphabet = alphabet
        self.description = f"memorization of {symbols} symbols from an alphabet of {alphabet}"
        self.radices = (alphabet,) * symbols
        self.vocabulary_size = alphabet + 1
        self.timesteps = 2 * symbols + 3
        self.answer_positions = range(symbols + 1, 2 * symbols + 1)

    def inputs(self, choices: Integers) -> Integers:
        """Return ``-``, the sequence, and marks to the end, [B, T]."""
        return self._written_at(1, choices)

    def targets(self, choices: Integers) -> Integers:
        """Return marks, the sequence right after its last input, and marks to the end, [B, T]."""
        return self._written_at(self.answer_positions.start, choices)

    def token_name(self, token: int) -> str:
        """Return a letter, a digit, ``+``, ``/`` or ``-``; numbers for alphabets above 64."""
        if token == self.alphabet:
            return "-"
        return LETTERS[token] if self.alphabet <= len(LETTERS) else str(token)

    def _written_at(self, start: int, choices: Integers) -> Integers:
        tokens = np.full((len(choices), self.timesteps), self.alphabet, dtype=np.int64)
        tokens[:, start : start + choices.shape[1]] = choices
        return tokens


class MemorizationDataModule(GeneratedDataModule):
    """Memorization of a sequence of ``symbols`` tokens out of ``alphabet`` [paper].

    One token a timestep, with ``-`` before and after. The network writes the sequence in the same
    order right after its last input; 2n+3 timesteps:

    >>> import numpy as np
    >>> task = MemorizationTask(symbols=5, alphabet=64)
    >>> choices = np.array([[0, 1, 2, 2, 1]])
    >>> print(task.render(task.inputs(choices)[0]))
    - a b c c b - - - - - - -
    >>> print(task.render(task.targets(choices)[0]))
    - - - - - - a b c c b - -

    The answer is n positions, 6..10 here. Its tokens are uniform and independent in 0..alphabet-1;
    token ``alphabet`` is ``-``. The paper's 65 symbols are read as 64 and the mark [ours].

    Args:
        symbols: length n of the sequence to memorize; 20 in the paper.
        alphabet: number of different tokens in it.
        batch_size: training samples of all devices together per step; 15 in the paper.
        samples_per_epoch: training samples from one validation to the next, a multiple of
            ``batch_size``.
        validation_samples: size of the validation set, the same for every seed.
        test_samples: size of the test set, the same for every seed.
        seed: 0..2**64-1; chooses the training samples.
        num_workers: processes that draw training samples ahead; 0 draws them in the trainer's.
        evaluation_batch_size: validation or test samples per device and step.
        sampling: settings of `tlstm.tasks.sampling.Sampling` for training samples.

    Raises:
        ValueError: an argument is out of its range, or there are so few different sequences that
            a split has none.
    """

    def __init__(
        self,
        symbols: int = 20,
        alphabet: int = 64,
        batch_size: int = 15,
        samples_per_epoch: int = 3000,
        validation_samples: int = 1000,
        test_samples: int = 1000,
        seed: int = 0,
        num_workers: int = 0,
        evaluation_batch_size: int = 100,
        sampling: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            MemorizationTask(symbols, alphabet),
            batch_size=batch_size,
            samples_per_epoch=samples_per_epoch,
            validation_samples=validation_samples,
            test_samples=test_samples,
            seed=seed,
            num_workers=num_workers,
            evaluation_batch_size=evaluation_batch_size,
            sampling=sampling,
        )
