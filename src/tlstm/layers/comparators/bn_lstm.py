"""BN-LSTM, with recurrent batch normalization (Cooijmans et al. 2017), in Table 3.

    g, f, i, o: a = BN(W_h h_{t−1}; γ_h) + BN(W_x x_t; γ_x) + b
    c_t = σ(f) ⊙ c_{t−1} + σ(i) ⊙ tanh(g)
    h_t = σ(o) ⊙ tanh(BN(c_t; γ_c, β_c))             c itself stays as it is

BN has statistics of its own at every timestep, γ and β are the same at all. h_0 and c_0 are learnt;
for images in order h_0 has noise added, since constant pixels would have no variance. At first γ is
0.1, the forget bias 1, W_x orthogonal, W_h the identity for g and orthogonal for f, i, o [code].

[ours] evaluation uses the moving averages of training; the row's were computed anew from all
training images. Examples on several devices are normalized on each alone. The row's permuted images
are of 501 pixels alone: its permutation was drawn with replacement [code].

Dimension letters of this file:
    T       timesteps
    B       examples
    M       units
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tlstm.layers.comparators.comparator import Device, Dtype, Parts, SteppedComparator
from tlstm.utils import at_least

MOMENTUM, EPSILON = 0.01, 1e-5  # of a new batch in the moving averages, added to a variance


class BNLSTM(SteppedComparator):
    """BN-LSTM; the state is h, c and the number of timesteps read, the same for all examples.

    Args:
        input_size: features of the input.
        channels: M, units.
        sequence_length: timesteps with statistics of their own; later ones use the last.
        noise: standard deviation of what is added to h_0, in training and evaluation.
        batch_first: True for batches [B, T, input_size].
        device: of the weights.
        dtype: of the weights.
    """

    def __init__(
        self,
        input_size: int,
        channels: int,
        sequence_length: int,
        noise: float = 0.0,
        batch_first: bool = False,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(input_size, channels, batch_first)
        self.sequence_length = at_least("sequence_length", sequence_length, 1)
        self.noise = noise
        self.sizes = {"h": channels, "c": channels, "t": 1}
        rows = 4 * channels
        self.input = nn.Linear(input_size, rows, bias=False, device=device, dtype=dtype)
        self.hidden = nn.Linear(channels, rows, bias=False, device=device, dtype=dtype)
        self.bias = nn.Parameter(torch.zeros(rows, device=device, dtype=dtype))
        self.start = nn.Parameter(torch.zeros(2, channels, device=device, dtype=dtype))
        self.norm_input, self.norm_hidden, self.norm_memory = (
            TimestepNorm(sequence_length, size, device, dtype) for size in (rows, rows, channels)
        )
        self.bias_memory = nn.Parameter(torch.zeros(channels, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights."""
        of_g, of_gates = self.hidden.weight.tensor_split([self.channels])
        nn.init.eye_(of_g)
        nn.init.orthogonal_(of_gates)
        nn.init.orthogonal_(self.input.weight)
        nn.init.ones_(self.bias[self.channels : 2 * self.channels])

    def forward_sequence(
        self, steps: Tensor, state: Parts, stream: bool, lengths: Tensor | None
    ) -> tuple[Tensor, Parts]:
        """Run over a sequence.

        Raises:
            ValueError: lengths are given.
        """
        if lengths is not None:
            raise ValueError(
                "lengths cannot be given: BN-LSTM normalizes over a batch of equally long examples"
            )
        return super().forward_sequence(steps, state, stream, lengths)

    def begin(self, parts: Parts) -> Parts:
        """Return h_0 with noise, and c_0, where no timestep has been read."""
        hidden, memory, t = parts
        h_0, c_0 = self.start
        noise = self.noise * torch.randn_like(hidden)
        fresh = t < 0.5
        return torch.where(fresh, h_0 + noise, hidden), torch.where(fresh, c_0, memory), t

    def timesteps(self, steps: Tensor, parts: Parts) -> Iterable[Parts]:
        """Return BN(W_x x_t) + b, and the row of the statistics, [1]."""
        read = parts[-1][0].round().long()
        rows = (read + torch.arange(len(steps), device=steps.device)).clamp(
            max=self.sequence_length - 1
        )
        products = self.norm_input(self.input(steps), rows) + self.bias
        return zip(products, rows.split(1), strict=True)

    def advance(self, read: Parts, parts: Parts) -> tuple[Tensor, Parts]:
        """Run one timestep."""
        (product, row), (hidden, memory, t) = read, parts
        g, f, i, o = (self._normalized(self.norm_hidden, self.hidden(hidden), row) + product).chunk(
            4, dim=-1
        )
        memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
        normalized = self._normalized(self.norm_memory, memory, row) + self.bias_memory
        hidden = torch.sigmoid(o) * torch.tanh(normalized)
        return hidden, (hidden, memory, t + 1)

    def _normalized(self, norm: "TimestepNorm", step: Tensor, row: Tensor) -> Tensor:
        normalized: Tensor = norm(step.unsqueeze(0), row)
        return normalized.squeeze(0)


class TimestepNorm(nn.Module):
    """Batch normalization with statistics of each timestep and one gain for all.

    Attributes:
        gain: [n].
        mean, variance: moving averages for evaluation, [timesteps, n].
        epsilon: added to a variance.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, timesteps: int, size: int, device: Device, dtype: Dtype) -> None:
        super().__init__()
        self.epsilon = EPSILON
        self.gain = nn.Parameter(torch.full((size,), 0.1, device=device, dtype=dtype))
        self.register_buffer("mean", torch.zeros(timesteps, size, device=device, dtype=dtype))
        self.register_buffer("variance", torch.ones(timesteps, size, device=device, dtype=dtype))

    def forward(self, values: Tensor, rows: Tensor) -> Tensor:
        """Normalize [T, B, n] over B; `rows` [T] are those of the statistics."""
        values = values.to(self.gain.dtype)
        if self.training:
            variance, mean = torch.var_mean(values, dim=1, correction=0)
            self._keep(self.mean, rows, mean)
            self._keep(self.variance, rows, variance)
        else:
            variance, mean = self.variance[rows], self.mean[rows]
        scale = self.gain * torch.rsqrt(variance + self.epsilon)
        return (values - mean.unsqueeze(1)) * scale.unsqueeze(1)

    @torch.no_grad()
    def _keep(self, average: Tensor, rows: Tensor, values: Tensor) -> None:
        average.index_copy_(0, rows, torch.lerp(average[rows], values, MOMENTUM))
