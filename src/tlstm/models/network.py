"""What is trained on symbols: one-hot encoding, a recurrent core, a linear head."""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from tlstm.recurrent import RecurrentLayer

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class SequenceNetwork(nn.Module):
    """Symbols in, logits out: y_t = h_{t+L−1}[P,..,P] Wʸ + bʸ (section 2.1 of the paper).

    Args:
        core: the recurrent layer; its `input_size` is the number of symbols it reads.
        output_size: number of symbols (or classes) to choose from.
    """

    def __init__(self, core: RecurrentLayer, output_size: int) -> None:
        super().__init__()
        self.core = core
        self.head = nn.Linear(core.channels, output_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits for every timestep.

        Args:
            tokens: [B, T], integers from 0 to input_size − 1.

        Returns:
            [B, T, output_size].

        Raises:
            ValueError: a token is none of the symbols. While a CUDA graph is captured that cannot
                be seen: `check_symbols` then is the caller's.
        """
        encoded = self.encode(tokens)
        if self.core.batch_first:
            hidden, _ = self.core(encoded)
        else:
            time_first, _ = self.core(encoded.transpose(0, 1))
            hidden = time_first.transpose(0, 1)
        logits: Tensor = self.head(hidden)
        return logits

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
