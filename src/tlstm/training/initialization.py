"""First weights of a core, where the configuration asks for others than the layer draws."""

import torch
from omegaconf import DictConfig
from torch import nn

from tlstm.layers.comparators.comparator import Comparator
from tlstm.layers.recurrent import RecurrentLayer

# The settings that leave what the layer has drawn
AS_DRAWN = {
    "hidden_range": None,
    "input_range": None,
    "bias_range": None,
    "norm_gain": 1,
    "scale": 1,
}


@torch.no_grad()
def initialize(core: RecurrentLayer, settings: DictConfig) -> None:
    """Draw the weights of a layer again, as `conf/initialization` describes [ours].

    The forget gates' bias stays what the layer sets it to.

    Args:
        core: the layer, as it has drawn itself.
        settings: `initialization` of the configuration.

    Raises:
        ValueError: the layer has no normalization whose gain could be set, or begins as its own
            paper says.
    """
    if isinstance(core, Comparator):
        if any(settings[key] != value for key, value in AS_DRAWN.items()):
            raise ValueError(
                f"initialization={settings.name} cannot be: {type(core).__name__} begins as its "
                "paper says, initialization=published"
            )
        return
    for weight in _named(core, "weight"):
        # Those that read the input too, although `input_range` may draw them once more: so the
        # random numbers are the same with every `input_range`
        _draw(weight, settings.hidden_range)
        weight.mul_(settings.scale)
    _draw(core.get_parameter("weight_input"), settings.input_range)
    for bias in _named(core, "bias"):
        _draw(bias, settings.bias_range)
    core.reset_forget_bias()
    _set_norm_gain(core, settings.norm_gain)


def _named(core: RecurrentLayer, kind: str) -> list[nn.Parameter]:
    return [value for name, value in core.named_parameters() if name.startswith(kind)]


def _draw(parameter: nn.Parameter, bound: float | str | None) -> None:
    """Draw uniform numbers within ±bound, or normal ones; None leaves what the layer drew."""
    if bound == "normal":
        parameter.normal_()
    elif bound is not None:
        parameter.uniform_(-float(bound), float(bound))


def _set_norm_gain(core: RecurrentLayer, gain: float) -> None:
    gains = [value for name, value in core.named_parameters() if name.endswith("gain")]
    if gain != 1 and not gains:
        raise ValueError(
            f"initialization.norm_gain={gain} cannot be: the model has no normalization"
        )
    for parameter in gains:
        parameter.fill_(gain)
