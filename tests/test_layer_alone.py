"""The layer with torch, numpy and safetensors alone, as `pip install tlstm` brings them."""

import os
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]

# The other packages are as if they were not installed
PROGRAM = """
import sys
from importlib.machinery import PathFinder

absent = set(sys.argv[1].split())

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
for hidden in ("lightning", "hydra", "pandas", "yaml"):
    try:
        __import__(hidden)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{hidden} is there")

import torch
from tlstm import TensorizedLSTM

torch.manual_seed(0)
layer = TensorizedLSTM(3, 4, 2, rank=3, normalization="channel")
optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
inputs, losses = torch.randn(5, 2, 3), []
for _ in range(3):
    loss = layer(inputs)[0].square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[2] < losses[0], losses
layer.to_file(sys.argv[2])
again = TensorizedLSTM.from_file(sys.argv[2])
assert torch.equal(again(inputs)[0], layer(inputs)[0])
"""


def names_of(requirements: list[str]) -> set[str]:
    """The distributions that these require here, without an extra."""
    read = map(Requirement, requirements)
    return {each.name for each in read if not each.marker or each.marker.evaluate({"extra": ""})}


def with_their_needs(names: set[str]) -> set[str]:
    """The distributions of these names, with all that they require in turn."""
    found: set[str] = set()
    while names:
        found |= names
        names = {
            need for name in names for need in names_of(distribution(name).requires or [])
        } - found
    return found


def modules_without(distributions: set[str]) -> set[str]:
    """The top-level modules that are installed, except those of these distributions."""
    kept = {name.lower() for name in distributions} | {"tlstm"}
    return {
        module
        for module, owners in packages_distributions().items()
        if not kept & {name.lower().replace("_", "-") for name in owners}
    }


def test_a_layer_trains_and_is_stored_without_any_other_package(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own = names_of(project["dependencies"])
    assert own == {"numpy", "safetensors", "torch"}
    absent = " ".join(modules_without(with_their_needs(own)))
    arguments = [absent, str(tmp_path / "layer.safetensors")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["train", "figures", "dashboards"])
def test_a_command_says_in_a_sentence_what_to_install(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", f"tlstm.{command}"],  # -S: no installed packages
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith("pip install 'tlstm[experiments]'")
