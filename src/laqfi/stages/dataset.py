"""Stage: the image set as arrays on the canvas everything is measured on."""

from pathlib import Path

from laqfi.base import files
from laqfi.data import datasets
from laqfi.data.params import Dataset
from laqfi.params.folders import located
from laqfi.stages import command


def dataset(dataset: Dataset, *, folders: Path, out: Path) -> None:
    """Write training and test images, and labels where there are any, as one npz.

    `folders` says where the folder with the hash in the settings lies now; the output does not depend on that.
    """
    options = dict(dataset.model_extra)
    if "sha256" in options:
        options["path"] = located(folders, options["sha256"])
    files.write_arrays(out, **datasets.load(dataset.name, options))


if __name__ == "__main__":
    command.run(dataset)
