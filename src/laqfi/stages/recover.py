"""Stage: what a variant stored learns from FP32, in the formats and bytes that it has."""

from pathlib import Path

from laqfi.base import files
from laqfi.base.pictures import from_uint8
from laqfi.base.program import program
from laqfi.quant.calibration import CalibrationSet
from laqfi.quant.recipe import Recover
from laqfi.quant.recovered import recovered
from laqfi.quant.resume import fingerprint
from laqfi.stages import command
from laqfi.storage.stored_file import read_stored, write_stored


def recover(
    recovery: Recover,
    threads: int,
    versions: dict[str, str],
    *,
    model: Path,
    base_model: Path,
    dataset: Path,
    calibration: Path,
    out: Path,
) -> None:
    """Write the model file `model` with what its tensors learned, layout and size unchanged."""
    file, base = read_stored(model), read_stored(base_model)
    images = from_uint8(files.read_array(dataset, "train_images"))
    found = CalibrationSet.read(calibration, tuple(base[1]["image"]))
    decides = [recovery.model_dump(), threads, program(Path(__file__), versions)]
    name = fingerprint(decides, [model, base_model, dataset, calibration])
    resume = out.parents[1] / "resume" / f"{name}.safetensors"
    made, (before, after) = recovered(recovery, file, base, images, found, model, resume)
    print(f"recover: mean squared error of the predicted noise {before:.3g} before, {after:.3g} after")
    write_stored(out, *made)
    resume.unlink(missing_ok=True)


if __name__ == "__main__":
    command.run(recover)
