"""What is trained: symbols in one-hot encoding or features, a recurrent core, a linear head."""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from tlstm.layers.recurrent import RecurrentLayer, State

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class SequenceNetwork(nn.Module):
    """Symbols or features in, logits out: y_t = h_{t+L−1}[P,..,P] Wʸ + bʸ (paper, section 2.1).

    Args:
        core: the recurrent layer; its `input_size` is the number of symbols or features it reads.
        output_size: number of symbols (or classes) to choose from.
        reads_symbols: whether inputs are symbols, and not features.
    """

    def __init__(self, core: RecurrentLayer, output_size: int, reads_symbols: bool = True) -> None:
        super().__init__()
        self.reads_symbols = reads_symbols
        self.core = core
        self.head = nn.Linear(core.channels, output_size)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits for every timestep.

        Args:
            inputs: [B, T], integers from 0 to input_size − 1; features are floating point numbers,
                [B, T, input_size].

        Returns:
            [B, T, output_size].

        Raises:
            ValueError: inputs have another shape or type, or a token is none of the symbols. While
                a CUDA graph is captured that cannot be seen: `check_symbols` then is the caller's.
        """
        logits, _ = self._run(inputs, None, stream=False)
        return logits

    def read(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits for the next part of streams, in as many timesteps as it has.

        Args:
            inputs: as `forward` takes them.
            state: what the core held after the part before, or its `initial_state`.

        Returns:
            [B, T, output_size], where those at t belong to the input at t − `core.delay`, which may
            be of an earlier part; and the state.

        Raises:
            ValueError: as `forward`; or the state is of another shape.
        """
        return self._run(inputs, state, stream=True)

    def _run(self, inputs: Tensor, state: State | None, stream: bool) -> tuple[Tensor, State]:
        encoded = self.encode(inputs) if self.reads_symbols else self.features(inputs)
        if self.core.batch_first:
            hidden, state = self.core(encoded, state, stream=stream)
        else:
            time_first, state = self.core(encoded.transpose(0, 1), state, stream=stream)
            hidden = time_first.transpose(0, 1)
        return self.head(hidden), state

    def encode(self, tokens: Tensor) -> Tensor:
        """One-hot vectors in the weights' dtype, [B, T, input_size]."""
        symbols = self.core.input_size
        if tokens.dim() != 2 or tokens.numel() == 0 or tokens.dtype not in INTEGERS:
            raise ValueError(
                "tokens must be integers of shape [B, T], not empty, "
                f"got shape {list(tokens.shape)} of {tokens.dtype}"
            )
        if not (tokens.is_cuda and torch.cuda.is_current_stream_capturing()):
            self.check_symbols(tokens)
        return F.one_hot(tokens.long(), symbols).to(self.head.weight.dtype)

    def features(self, inputs: Tensor) -> Tensor:
        """The features as they are, in the weights' dtype, [B, T, input_size]."""
        size = self.core.input_size
        if inputs.dim() != 3 or inputs.shape[-1] != size or not inputs.is_floating_point():
            raise ValueError(
                f"inputs must be floating point numbers of shape [B, T, {size}], "
                f"got shape {list(inputs.shape)} of {inputs.dtype}"
            )
        return inputs.to(self.head.weight.dtype)

    def check_symbols(self, tokens: Tensor) -> None:
        """Make sure that every token is one of the symbols; a GPU has to be waited for.

        Raises:
            ValueError: one is not.
        """
        smallest, largest = (int(value) for value in torch.aminmax(tokens))
        if smallest < 0 or largest >= self.core.input_size:
            raise ValueError(
                f"tokens must be from 0 to {self.core.input_size - 1}, "
                f"got from {smallest} to {largest}"
            )
