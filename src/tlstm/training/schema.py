"""The values that a configuration may have: ranges, words and classes."""

import inspect
import math
import pkgutil
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from tlstm.layers.recurrent import RecurrentLayer
from tlstm.tasks.base import SequenceDataModule
from tlstm.utils import at_least, project_name

# What a whole number may be at the least, if that is said here, and at the most; beyond that a slip
# of the pen fills the machine
INTEGERS: dict[str, tuple[int | None, int]] = {
    "seed": (0, 2**32 - 1),  # NumPy takes no larger one
    "model.depth": (1, 1_000),
    "model.channels": (1, 100_000_000),
    "model.core.rank": (2, 8),
    "model.core.kernel_size": (2, 100),
    "training.batch_size": (1, 1_000_000),
    "training.max_samples": (1, 10**15),
    "training.samples_per_epoch": (1, 10**12),
    "training.warmup_samples": (0, 10**15),
    "training.patience": (0, 10**9),
    "training.decay_patience": (1, 10**9),
    "trainer.devices": (1, 1_000),
    "trainer.num_nodes": (1, 1_000),
    "trainer.threads": (1, 1_000),
    "trainer.num_workers": (0, 1_000),
    "trainer.steps_per_launch": (1, 100_000),
    "model.core.channels": (None, 100_000_000),
    "model.core.depth": (None, 1_000),
    "model.core.tensor_size": (None, 1_000),
    "task.digits": (None, 10_000),
    "task.symbols": (None, 10_000),
    "task.alphabet": (None, 100_000),
    "task.timesteps": (None, 1_000_000),
    "task.validation_samples": (None, 10_000_000),
    "task.test_samples": (None, 10_000_000),
    "task.evaluation_streams": (None, 1_000_000),
    "task.context": (None, 10_000_000),
}

LARGEST = 1e37  # number that float32 can hold, doubled too

# What a number in the configuration is above 0 and may be at the most
POSITIVE: dict[str, float] = {
    "training.learning_rate": math.inf,
    "initialization.scale": math.inf,
    "training.threshold": 1,
    "training.momentum": 1,
    "training.rate_decay": 1,
}

# What is a number from 0 on, and 0 where it is not used
FROM_ZERO = ("training.gradient_clip", "initialization.norm_gain")

# Such a number, or what else it may be
RANGES: dict[str, tuple[str | None, ...]] = {
    "initialization.hidden_range": (None,),
    "initialization.input_range": (None, "normal"),
    "initialization.bias_range": (None,),
}

# What may be null, and what else must not be null then
OF_OTHERS = {
    "training.momentum": "training.optimizer",
    "training.decay_patience": "training.rate_decay",
}
OPTIONAL = {"model.core.rank", "model.core.kernel_size", "trainer.threads", "training.rate_decay"}
OPTIONAL |= OF_OTHERS.keys()
AUTOMATIC = {"trainer.steps_per_launch"}  # "auto" leaves them to the machine
CHOICES: dict[str, tuple[bool | str | None, ...]] = {
    "training.loss": ("answer", "all", "sum"),
    "training.optimizer": (None, "rmsprop", "sgd"),
    "trainer.accelerator": ("auto", "cpu", "gpu"),
    "trainer.precision": ("32-true", "bf16-mixed", "16-mixed", "64-true", "bf16-true", "16-true"),
    "trainer.float32_matmul_precision": ("highest", "high", "medium"),
    "trainer.cuda_graph": ("auto", True, False),
    "trainer.progress": (True, False),
    "logger.tensorboard": (True, False),
    "logger.wandb": (True, False),
}

YAML: dict[bool | str | None, str] = {None: "null", True: "true", False: "false"}

# What a configuration names a class for, of which kind it must be, and where it must lie
CLASSES = (
    ("task.data_module", SequenceDataModule, "tlstm.tasks."),
    ("model.core", RecurrentLayer, "tlstm.layers."),
)

# What changes how Hydra makes an object
SPECIAL = {"_partial_", "_args_", "_convert_", "_recursive_"}


def check_values(config: DictConfig) -> None:
    """Refuse a configuration that no run can have, before anything is done.

    Raises:
        ValueError: a value is out of its range; the message names it and what it may be.
    """
    for key, (minimum, _) in INTEGERS.items():
        value = OmegaConf.select(config, key)
        left_open = OPTIONAL if value is None else AUTOMATIC if value == "auto" else set()
        if minimum is not None and key not in left_open:
            at_least(key, value, minimum)
    check_sizes(config)
    _check_words(config)
    for key, most in POSITIVE.items():
        value = OmegaConf.select(config, key)
        is_open = value is None and key in OPTIONAL
        if not is_open and (not _is_number(value) or not 0 < value <= most):
            limit = "" if most > 1 else f" and at most {most}"
            raise ValueError(f"{key} must be a number above 0{limit}, got {value!r}")
    for key in (*FROM_ZERO, *RANGES):
        value, others = OmegaConf.select(config, key), RANGES.get(key, ())
        if value not in others and (not _is_number(value) or value < 0):
            words = "".join(f" or {'null' if other is None else other}" for other in others)
            raise ValueError(f"{key} must be a number from 0 on{words}, got {value!r}")
    for key, other in OF_OTHERS.items():
        value = OmegaConf.select(config, key)
        if value is not None and OmegaConf.select(config, other) is None:
            raise ValueError(f"{key}={value} needs {other}")
    epoch = config.training.samples_per_epoch
    if config.training.max_samples < epoch:
        raise ValueError(
            f"training.max_samples must be at least training.samples_per_epoch={epoch}, "
            f"got {config.training.max_samples}"
        )


def check_sizes(config: DictConfig) -> None:
    """Refuse a configuration with a whole number that fills the machine.

    Raises:
        ValueError: a value is too large; the message names it.
    """
    for key, (_, limit) in INTEGERS.items():
        value = OmegaConf.select(config, key)
        if isinstance(value, int | float) and value > limit:
            raise ValueError(f"{key} must be at most {limit}, got {value}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_words(config: DictConfig) -> None:
    """Refuse before the training what a record or a directory cannot be named with."""
    for group in ("scale", "task", "model", "initialization", "sampling", "experiment"):
        name = config[group].name
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
            raise ValueError(
                f"{group}.name must be at most 64 letters, digits, _, . and -, got {name!r}"
            )
    project_name("logger.project", str(config.logger.project))
    for key, choices in CHOICES.items():
        value = OmegaConf.select(config, key)
        if (type(value), value) not in [(type(choice), choice) for choice in choices]:
            words = ", ".join(YAML.get(choice, str(choice)) for choice in choices)
            raise ValueError(f"{key} must be one of {words}, got {value!r}")


def check_leaves(leaves: Mapping[str, Any], declared: Mapping[str, Any]) -> None:
    """Refuse single values that no record and no file can hold, and text in the place of a number.

    Args:
        leaves: by their dotted names.
        declared: what the files of conf/ say.

    Raises:
        ValueError: a value cannot be; the message names it.
    """
    for key, value in leaves.items():
        if isinstance(value, int | float) and not abs(value) <= LARGEST:
            raise ValueError(f"{key} must be a finite number up to {LARGEST:g}, got {value}")
        nothing = value is None and key.startswith("initialization.") and key.endswith("_range")
        if _is_number(declared.get(key)) and not (_is_number(value) or nothing):
            raise ValueError(f"{key} must be a number, got {value!r}")
        if isinstance(value, str) and {*map(unicodedata.category, value)} & {"Cc", "Cs"}:
            raise ValueError(f"{key} must be text without control characters, got {value!r}")


def check_classes(config: DictConfig | ListConfig) -> None:
    """Make sure that a configuration makes objects of this package's classes only.

    Raises:
        ValueError: it names something else, or nothing.
    """
    for key, kind, places in CLASSES:
        node = OmegaConf.select(config, key) if isinstance(config, DictConfig) else None
        whole = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_dict(node) else node
        if isinstance(whole, dict) and (special := SPECIAL & whole.keys()):
            raise ValueError(f"{key} takes settings by their names, and no {min(special)}")
        named = [whole] if isinstance(whole, str) else list(targets(whole))
        own = [name for name in named if isinstance(name, str) and name.startswith(places)]
        if len(named) != 1 or own != named or not _is_class(own[0], kind):
            got = ", ".join(map(str, named)) or "nothing"
            raise ValueError(f"{key} must be made of one {kind.__name__} of tlstm, got {got}")


def targets(node: Any) -> Iterator[Any]:
    """Yield every `_target_` within dictionaries and lists."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from targets(part)


def _is_class(name: str, kind: type) -> bool:
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        return False
    return isinstance(found, type) and issubclass(found, kind) and not inspect.isabstract(found)
