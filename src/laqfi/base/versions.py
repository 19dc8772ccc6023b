"""The versions of the packages that decide what is computed, recorded beside the parameters."""

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from laqfi.base.errors import LaqfiError

# PyTorch's own builds of one version, with and without CUDA: 2.12.1+cpu is 2.12.1, as for requirements.lock.
BUILD = re.compile(r"\+(?:cpu|cu\d+)$")


def installed(package: str) -> str | None:
    try:
        return BUILD.sub("", version(package))
    except PackageNotFoundError:
        return None


def check(recorded: Mapping[str, str], where: Path) -> None:
    """Raises LaqfiError if an installed version is not the one recorded in the file `where`."""
    for package, wanted in recorded.items():
        if (found := installed(package)) != wanted:
            raise LaqfiError(
                f"{package} {found or 'none'} is installed, {where} says {wanted}; `make versions`, then run again"
            )
