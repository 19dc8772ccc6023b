"""What only a GPU can show; elsewhere every test here is skipped."""

from pathlib import Path

import pytest
import torch

from laqfi.base import device

NEEDS = "needs a GPU: what it tests is how one computes"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=NEEDS))


@pytest.fixture(autouse=True)
def as_in_a_stage():
    device.settle()
