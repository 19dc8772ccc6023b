"""Stage: one variant's stored model as a folder that diffusers loads."""

from pathlib import Path

from laqfi.base.errors import LaqfiError
from laqfi.stages import command
from laqfi.storage.exported import export_folder
from laqfi.storage.stored_file import read_stored


def export(*, model: Path, source: Path, out: Path) -> None:
    """Write the folder `out` like `source`, the one of diffusers that the model came from, with the stored tensors."""
    tensors, metadata = read_stored(model)
    described = metadata.get("model")
    family = described.get("family") if isinstance(described, dict) else None
    if family != "diffusers":
        raise LaqfiError(f"{model}: model.family is {family!r}, exports are for models of the diffusers family")
    export_folder(source, tensors, metadata, out, model)


if __name__ == "__main__":
    command.run(export)
