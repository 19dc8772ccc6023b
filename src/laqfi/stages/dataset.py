"""Stage: the image set as arrays on the canvas everything is measured on."""

from pathlib import Path

from laqfi import cli, data, io
from laqfi.params.dataset import Dataset


def dataset(dataset: Dataset, *, out: Path) -> None:
    """Write training and test images and labels as one npz."""
    io.write_arrays(out, **data.load(dataset.name))


if __name__ == "__main__":
    cli.run(dataset)
