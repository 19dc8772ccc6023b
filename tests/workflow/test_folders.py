"""Both engines track what is in a folder of images, and not where it is."""

import re

import numpy as np
import pytest
from PIL import Image

from tiny import tiny_params

STEPS = {"dvc": ("dvc", "repro", "dataset@tiny"), "snakemake": ("snakemake", "--cores", "1", "data/tiny/dataset.npz")}


def add_image(folder, number: int) -> None:
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (9, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.mark.parametrize("engine", STEPS)
def test_new_images_are_read_again_and_a_folder_that_was_moved_is_not(clone, tmp_path_factory, engine):
    images = tmp_path_factory.mktemp("of a user")
    for number in range(40):
        add_image(images / "here", number)
    params = tiny_params()
    tiny = params["profiles"]["tiny"]
    tiny |= {"features": {"network": "efficientnet_lite0"}, "evaluate": tiny["evaluate"] | {"groups": 2}}
    tiny["evaluate"]["noise_images"] = 2

    def ran(path) -> bool:
        """Whether the stage `dataset` runs after what `make repro` does first."""
        tiny["dataset"] = {"name": "folder", "path": str(path), "side": 8}
        clone.write_params(params)
        clone.call("python", "workflow/folders.py")
        found = clone.call(*STEPS[engine])
        return bool(re.search(r"Running stage 'dataset@tiny'|rule dataset:", found.stdout + found.stderr))

    assert ran(images / "here")
    (images / "here").rename(images / "there")
    assert not ran(images / "there")
    add_image(images / "there", 40)
    assert ran(images / "there")
    assert str(images) not in (clone.folder / "data/tiny/params.json").read_text()
