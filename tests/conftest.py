"""What holds for every test: one thread each, since several tests run at a time."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for processes that tests start

import pytest
import torch


def pytest_configure() -> None:
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
