"""Both engines track what is in a folder of images or a file of embeddings, and not where it is."""

import re

import numpy as np
import pytest
from PIL import Image

from diffusers_folder import embeddings, small_conditional, write_embeddings, write_folder
from tiny import tiny_params

MODELS = {
    "dvc": ("dvc", "repro", "train@tiny"),
    "snakemake": ("snakemake", "--cores", "1", "data/tiny/model.safetensors"),
}
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


@pytest.mark.parametrize("engine", MODELS)
def test_other_embeddings_make_another_model_and_a_file_that_was_moved_does_not(clone, tmp_path_factory, engine):
    place = tmp_path_factory.mktemp("of a user")
    folder, file = write_folder(place / "model", small_conditional()), write_embeddings(place / "here.safetensors")
    params = tiny_params()
    params["variants"], tiny = {"fp32": params["variants"]["fp32"]}, params["profiles"]["tiny"]
    del tiny["diffusion"], tiny["train"], tiny["sample"]["headline"], tiny["sample"]["clip"]
    tiny["sample"] |= {"sampler": "scheduler"}

    def ran(path, command=MODELS[engine], check=True):
        tiny["model"] = {"family": "diffusers", "path": str(folder), "embeddings": str(path)}
        clone.write_params(params)
        found = clone.call("python", "workflow/folders.py", check=check)
        if found.returncode:
            return found.stderr
        found = clone.call(*command, check=check)
        return bool(re.search(r"Running stage 'train@tiny'|rule train:", found.stdout + found.stderr))

    assert ran(file) is True
    assert ran(file.rename(place / "there.safetensors")) is False
    write_embeddings(place / "there.safetensors", 2 * embeddings())
    assert ran(place / "there.safetensors") is True
    assert str(place) not in (clone.folder / "data/tiny/params.json").read_text()
    assert "none.safetensors: not a readable safetensors file" in ran(place / "none.safetensors", check=False)
