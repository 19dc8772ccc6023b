"""Stage: one variant's stored model as a pipeline that diffusers loads."""

from pathlib import Path

from laqfi.base.errors import LaqfiError
from laqfi.stages import command
from laqfi.storage.described import described
from laqfi.storage.exported import export_folder, frame_of_folder, frame_of_model
from laqfi.storage.stored_file import read_stored


def export(*, model: Path, out: Path) -> None:
    """Write the folder `out`: a pipeline of the network and the scheduler that the model's file describes."""
    write(model, out)


def write(model: Path, out: Path, source: Path | None = None) -> None:
    """The model's file as a folder like `source`, the one that the network came from; without it as `export` says."""
    tensors, metadata = read_stored(model)
    settings = described(metadata, model)[1].model
    if settings.family != "diffusers":
        raise LaqfiError(
            f"{model}: model.family is {settings.family!r}, exports are for models of the diffusers family"
        )
    frame = frame_of_model(settings, model) if source is None else frame_of_folder(source)
    export_folder(frame, tensors, metadata, out, model)


if __name__ == "__main__":
    command.run(export)
