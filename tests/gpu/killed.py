"""A run that is killed after its first saved state, and what differs between two that have a state."""

from collections.abc import Callable
from typing import Any

import torch


def dying_clock() -> Callable[[], int]:
    """Its third reading kills: the start, and the first state before and after it is written."""
    readings = iter(range(100))

    def clock() -> int:
        if (now := next(readings)) == 2:
            raise KeyboardInterrupt
        return now

    return clock


def unequal(one: Any, other: Any) -> list[str]:
    """Names of what differs, and by how much."""
    pairs = {name: (tensor, other.state()[name]) for name, tensor in one.state().items()}
    return [f"{name}: {(a - b).abs().max():g}" for name, (a, b) in pairs.items() if not torch.equal(a, b)]
