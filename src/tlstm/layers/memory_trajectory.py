"""The memory cell of a layer over time, from the layer's own single steps (Figure 6).

Dimension letters of this file:
    T       timesteps of the input
    L       depth
    P       locations along each location axis
    M       channels
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from tlstm.layers.serialization import constructor_arguments
from tlstm.layers.tensorized import TensorizedLSTM


class Trajectory(NamedTuple):
    """The memory cell and the outputs of a layer over one example.

    Attributes:
        cells: mean over the channels of C_t at the diagonal locations (p,..,p), [P, T + L − 1].
        outputs: the output of each input, [T, M].
    """

    cells: Tensor
    outputs: Tensor


@torch.no_grad()
def trajectory(layer: TensorizedLSTM, inputs: Tensor) -> Trajectory:
    """Run a layer over one example from the zero state (Figure 6).

    Args:
        layer: any tensorized LSTM.
        inputs: [T, input_size]; L − 1 timesteps with a zero projected input follow, as in a whole
            sequence.
    """
    projected = F.linear(inputs, layer.weight_input, layer.bias_input)
    projected = F.pad(projected, (0, 0, 0, layer.delay))
    core, state = reading_projections(layer), None
    outputs, cells = [], []
    for step in projected:
        output, state = core.step(step, state)
        outputs.append(output)
        cells.append(diagonal_means(state[1]))
    return Trajectory(torch.stack(cells, dim=1), torch.stack(outputs[layer.delay :]))


def reading_projections(layer: TensorizedLSTM) -> TensorizedLSTM:
    """Copy the layer with an identity projection: it reads projected inputs [M]."""
    options = constructor_arguments(layer) | {"input_size": layer.channels}
    weight = layer.weight_input
    core = TensorizedLSTM(**options, device=weight.device, dtype=weight.dtype)
    projection = {
        "weight_input": torch.eye(layer.channels),
        "bias_input": torch.zeros(layer.channels),
    }
    core.load_state_dict(layer.state_dict() | projection)
    return core


def diagonal_means(cell: Tensor) -> Tensor:
    """Return the mean over the channels at the locations (p,..,p), [P], of a cell [P, .., P, M]."""
    places = torch.arange(len(cell))
    return cell[(places,) * (cell.dim() - 1)].mean(-1)
