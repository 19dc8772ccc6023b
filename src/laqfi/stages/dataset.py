"""Stage: the image set as arrays on the canvas everything is measured on."""

from pathlib import Path

from laqfi.base import files
from laqfi.data import datasets
from laqfi.data.params import Dataset
from laqfi.stages import command


def dataset(dataset: Dataset, *, out: Path) -> None:
    """Write training and test images and labels as one npz."""
    files.write_arrays(out, **datasets.load(dataset.name, dataset.model_extra))


if __name__ == "__main__":
    command.run(dataset)
