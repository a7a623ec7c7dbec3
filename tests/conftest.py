"""What holds for every test: one thread each, since several tests run at a time."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for processes that tests start

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from torch.utils import deterministic


def pytest_configure() -> None:
    torch.set_num_threads(1)
    # An example takes longer on a busy machine, which is no failure; pytest-timeout ends what hangs
    settings.register_profile("tlstm", deadline=None)
    settings.load_profile("tlstm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


VARIABLES = dict(os.environ)


@pytest.fixture(autouse=True)
def no_variable_stays() -> Iterator[None]:
    """What a test, Lightning or W&B sets in the environment does not reach the next test."""
    yield
    for name in {*os.environ} - {*VARIABLES, "PYTEST_CURRENT_TEST"}:
        del os.environ[name]
    os.environ.update(VARIABLES)


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """What a tensor holds before it is written is NaN, and no product takes short cuts."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision(precision)
