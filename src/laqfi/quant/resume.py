"""What a walk over blocks has finished, kept beside the outputs: a killed run goes on after it, to the same bytes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from laqfi.base import files
from laqfi.quant.rounding import Stored


class Resume:
    """The finished blocks in one file, which is named by all that decides what they become."""

    def __init__(self, path: Path):
        self.path = path
        self.tensors: dict[str, Tensor] = files.read_tensors(path)[0] if path.exists() else {}

    def read(self, block: str, own: Mapping[str, Stored]) -> dict[str, Stored] | None:
        """The finished weights of a block; None if it is not among them."""
        if f"{block}|{next(iter(own))}.packed" not in self.tensors:
            return None
        return {
            name: replace(one, parts={part: self.tensors[f"{block}|{name}{part}"] for part in one.parts})
            for name, one in own.items()
        }

    def add(self, block: str, done: Mapping[str, Stored]) -> None:
        self.tensors |= {
            f"{block}|{name}{part}": tensor.cpu() for name, one in done.items() for part, tensor in one.parts.items()
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        files.write_tensors(self.path, self.tensors)

    def finish(self) -> None:
        self.path.unlink(missing_ok=True)


def fingerprint(decides: list, inputs: list[Path], begun: Mapping[str, Tensor] | None = None) -> str:
    """Hash of all that decides what fitting ends in: what was finished is taken up only by the very same run."""
    digest = hashlib.sha256(json.dumps([decides, [files.sha256(path) for path in inputs]]).encode())
    for name, tensor in sorted((begun or {}).items()):
        digest.update(name.encode() + tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
