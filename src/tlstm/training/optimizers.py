"""The optimizers: Adam for the paper's models, RMSprop and SGD for those it compares with."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer, RMSprop

# The share of RMSprop's mean square that stays, as in the code of the uRNNs and the dilated GRU
SMOOTHING = 0.9


def make_optimizer(
    kind: str,
    parameters: Iterable[nn.Parameter],
    rate: float | Tensor,
    momentum: float,
    device: torch.device,
) -> Optimizer:
    """Return an optimizer with torch's other defaults.

    Args:
        kind: adam, rmsprop or sgd.
        parameters: to train.
        rate: the learning rate; a tensor where it changes and a CUDA graph holds the step.
        momentum: of RMSprop and SGD.
        device: of the parameters.
    """
    options = device_options(kind, device)
    if kind == "sgd":
        return SGD(parameters, rate, momentum, **options)
    if kind == "rmsprop":
        return RMSprop(parameters, rate, SMOOTHING, momentum=momentum, **options)
    return Adam(parameters, rate, **options)


def device_options(kind: str, device: torch.device) -> dict[str, Any]:
    """Return the options of an optimizer for a device: on a GPU what a CUDA graph can hold."""
    on_gpu = device.type == "cuda"
    capturable: dict[str, Any] = {} if kind == "sgd" else {"capturable": on_gpu}
    # SGD has no other way to read its rate from a tensor
    fused = {} if kind == "rmsprop" else {"fused": True if on_gpu else None}
    return capturable | fused


def has_whole_state(states: Mapping[str, Any], optimizer: Optimizer) -> bool:
    """Return True if the states of a checkpoint have all that an optimizer keeps of its parameters.

    Raises:
        KeyError, TypeError, AttributeError: they are something else.
    """
    (group,) = optimizer.param_groups
    names = {Adam: ["exp_avg"], RMSprop: ["square_avg"], SGD: []}[type(optimizer)]
    if group.get("momentum"):
        names = [*names, "momentum_buffer"]
    kept = [state for _, state in sorted(states["state"].items())]
    shapes = [parameter.shape for parameter in group["params"]]
    return all([state[name].shape for state in kept] == shapes for name in names)
