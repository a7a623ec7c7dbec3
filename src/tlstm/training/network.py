"""The trained network: one-hot tokens or features, a recurrent core, a linear head."""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from tlstm.layers.recurrent import RecurrentLayer, State

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class SequenceNetwork(nn.Module):
    """Tokens or features in, logits out: y_t = h_{t+L−1}[P,..,P] Wʸ + bʸ (paper, section 2.1).

    Args:
        core: the recurrent layer; its `input_size` is the number of tokens or features it reads.
        output_size: number of tokens or classes to choose from.
        is_discrete: True where inputs are tokens, False where they are features.
    """

    def __init__(self, core: RecurrentLayer, output_size: int, is_discrete: bool = True) -> None:
        super().__init__()
        self.is_discrete = is_discrete
        self.core = core
        self.head = nn.Linear(core.channels, output_size)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute logits for every timestep.

        Args:
            inputs: [B, T], integers from 0 to input_size − 1; features are floating point numbers,
                [B, T, input_size].

        Returns:
            [B, T, output_size].

        Raises:
            ValueError: inputs have another shape or type, or a token is out of range. Tokens are
                not checked while a CUDA graph is captured: the caller then calls `check_tokens`.
        """
        logits, _ = self._run(inputs, None, stream=False)
        return logits

    def read(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Compute logits for the next part of streams, one per timestep.

        Args:
            inputs: as for `forward`.
            state: the core's state after the part before, or its `initial_state`.

        Returns:
            Logits [B, T, output_size] and the new state. Logits at t belong to the input at
            t − `core.delay`, possibly of an earlier part.

        Raises:
            ValueError: as for `forward`, or the state has another shape.
        """
        return self._run(inputs, state, stream=True)

    def _run(self, inputs: Tensor, state: State | None, stream: bool) -> tuple[Tensor, State]:
        encoded = self.encode(inputs) if self.is_discrete else self.features(inputs)
        if self.core.batch_first:
            hidden, state = self.core(encoded, state, stream=stream)
        else:
            time_first, state = self.core(encoded.transpose(0, 1), state, stream=stream)
            hidden = time_first.transpose(0, 1)
        return self.head(hidden), state

    def encode(self, tokens: Tensor) -> Tensor:
        """Encode tokens as one-hot vectors in the weights' dtype, [B, T, input_size]."""
        if tokens.dim() != 2 or tokens.numel() == 0 or tokens.dtype not in INTEGERS:
            raise ValueError(
                "tokens must be integers of shape [B, T], not empty, "
                f"got shape {list(tokens.shape)} of {tokens.dtype}"
            )
        if not (tokens.is_cuda and torch.cuda.is_current_stream_capturing()):
            self.check_tokens(tokens)
        return F.one_hot(tokens.long(), self.core.input_size).to(self.head.weight.dtype)

    def features(self, inputs: Tensor) -> Tensor:
        """Return the features in the weights' dtype, [B, T, input_size]."""
        size = self.core.input_size
        if inputs.dim() != 3 or inputs.shape[-1] != size or not inputs.is_floating_point():
            raise ValueError(
                f"inputs must be floating point numbers of shape [B, T, {size}], "
                f"got shape {list(inputs.shape)} of {inputs.dtype}"
            )
        return inputs.to(self.head.weight.dtype)

    def check_tokens(self, tokens: Tensor) -> None:
        """Check that every token is below `core.input_size`; on a GPU this synchronizes.

        Raises:
            ValueError: a token is out of range.
        """
        smallest, largest = (int(value) for value in torch.aminmax(tokens))
        if smallest < 0 or largest >= self.core.input_size:
            raise ValueError(
                f"tokens must be from 0 to {self.core.input_size - 1}, "
                f"got from {smallest} to {largest}"
            )
