"""Twenty optimizer steps, loss by loss, as the equations under autograd gave them once.

They stand here as numbers, so that a change of the equations shows even if every implementation
follows it.
"""

import pytest
import torch

from tlstm import TensorizedLSTM
from variants import random_tensor, randomize

LAYERS = {
    "2D": {"tensor_size": 4},
    "3D with CN": {"tensor_size": 3, "rank": 3, "normalization": "channel"},
}
GOLDEN = {
    "2D": [
        0.8470193364288, 0.8040846015391, 0.78704283847, 0.7790359075811, 0.775525108556,
        0.7723951965398, 0.7690279876833, 0.7659795359225, 0.7635399874467, 0.7617247089299,
        0.7606161500894, 0.7602235265465, 0.7591111458797, 0.7569923883805, 0.7544601477398,
        0.7505478356015, 0.7412260071645, 0.7172592117319, 0.6706075474781, 0.6138918235742,
    ],
    "3D with CN": [
        0.8050992616201, 0.7796738062378, 0.7735738753087, 0.7705958936836, 0.7677405153223,
        0.7657111292788, 0.764313888779, 0.763192932948, 0.7606637157052, 0.7555525137784,
        0.7466026980002, 0.7199665270339, 0.6757900386929, 0.616454887978, 0.5462001837282,
        0.479919147148, 0.4337976046572, 0.3966464741276, 0.3781154969118, 0.3759111331171,
    ],
}  # fmt: skip


def curve(kind: str, implementation: str, device: str, dtype: torch.dtype) -> list[float]:
    """The losses of a layer that learns to add up its inputs, by Adam."""
    layer = TensorizedLSTM(3, 4, **LAYERS[kind], implementation=implementation)  # type: ignore[arg-type]
    layer = randomize(layer.double()).to(device, dtype)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    inputs = random_tensor(6, 5, 3).to(device, dtype)
    targets = inputs.sum(-1, keepdim=True).cumsum(0).tanh()
    losses = []
    for _ in range(20):
        loss = (layer(inputs)[0] - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(
    ("implementation", "device", "dtype", "tolerance"),
    [
        ("autograd", "cpu", torch.float64, 1e-10),
        ("pytorch", "cpu", torch.float64, 1e-10),
        pytest.param("triton", "cuda", torch.float32, 1e-4, marks=pytest.mark.gpu),
    ],
    ids=["autograd", "pytorch", "triton"],
)
@pytest.mark.usefixtures("poisoned_memory")  # and products without short cuts
def test_the_loss_falls_as_it_always_did(
    kind: str, implementation: str, device: str, dtype: torch.dtype, tolerance: float
) -> None:
    assert curve(kind, implementation, device, dtype) == pytest.approx(GOLDEN[kind], rel=tolerance)
