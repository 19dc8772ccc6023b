"""Layer-adaptive quantization of diffusion models with Fisher information: measure, quantize, save and load a model."""

from importlib import import_module
from typing import Any

__all__ = ["load", "measure", "quantize", "save"]


def __getattr__(name: str) -> Any:
    """One of the four calls of `laqfi.api`, which is loaded when it is asked for: no stage needs it."""
    if name in __all__:
        return getattr(import_module("laqfi.api"), name)
    raise AttributeError(f"module 'laqfi' has no attribute {name!r}")
