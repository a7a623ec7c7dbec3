"""What is trained on symbols: one-hot encoding, a recurrent core, a linear head."""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from tlstm.recurrent import RecurrentLayer


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
            ValueError: a token is none of the symbols.
        """
        hidden, _ = self.core(self.encode(tokens).transpose(0, 1))
        logits: Tensor = self.head(hidden.transpose(0, 1))
        return logits

    def encode(self, tokens: Tensor) -> Tensor:
        """One-hot vectors in the weights' dtype, [B, T, input_size]."""
        symbols = self.core.input_size
        if tokens.dim() != 2 or tokens.is_floating_point():
            raise ValueError(
                f"tokens must be integers of shape [B, T], got {list(tokens.shape)} {tokens.dtype}"
            )
        smallest, largest = (int(value) for value in torch.aminmax(tokens))
        if smallest < 0 or largest >= symbols:
            raise ValueError(
                f"tokens must be from 0 to {symbols - 1}, got from {smallest} to {largest}"
            )
        return F.one_hot(tokens, symbols).to(self.head.weight.dtype)
