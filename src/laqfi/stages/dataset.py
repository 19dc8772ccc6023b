"""Stage: the image set as arrays on the canvas everything is measured on."""

from pathlib import Path

from laqfi import cli, data, io
from laqfi.config import Profile


def dataset(profile: Profile, *, out: Path) -> None:
    """Write training and test images and labels as one npz."""
    io.write_arrays(out, **data.load(profile.dataset.name))


if __name__ == "__main__":
    cli.run(dataset)
