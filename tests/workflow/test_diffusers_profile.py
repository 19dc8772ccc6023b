"""A network of diffusers through both engines, from its folder to an export that diffusers loads."""

import hashlib

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DModel

from clone import Clone
from laqfi.storage.model_file import read_model
from tiny import tiny_params
from train_digits_unet2d import SMALLEST, TIMESTEPS, trained

EXPORT = "data/tiny/exports/budget"


def diffusers_params(folder) -> dict:
    params = tiny_params()
    params["variants"] = {name: params["variants"][name] for name in ("fp32", "budget")}
    tiny = params["profiles"]["tiny"]
    del tiny["diffusion"], tiny["train"], tiny["sample"]["headline"], tiny["sample"]["clip"]
    tiny["model"] = {"family": "diffusers", "path": str(folder)}
    tiny["fisher"]["bins"] = [1, TIMESTEPS]
    tiny["sample"] |= {"sampler": "scheduler", "images": 16}
    tiny["export"] = ["budget"]
    return params


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("of a user") / "digits"
    trained(10, **SMALLEST).save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def ran(tmp_path_factory, warm, folder) -> dict[str, Clone]:
    """A clone for each engine, in which it ran everything."""
    clones = {}
    for engine, command in {"dvc": ("dvc", "repro"), "snakemake": ("snakemake", "--cores", "1")}.items():
        clones[engine] = clone = Clone(tmp_path_factory.mktemp(engine), warm)
        clone.write_params(diffusers_params(folder))
        clone.call("python", "workflow/folders.py")
        clone.call(*command)
    return clones


def test_both_engines_make_the_same_bytes(ran):
    found = ran["dvc"].outputs()
    assert found == ran["snakemake"].outputs()
    assert {name for name in found if "/exports/" in name} == {
        f"{EXPORT}/{name}"
        for name in (
            "model_index.json",
            "scheduler/scheduler_config.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
        )
    }
    assert "up to date" in ran["snakemake"].call("dvc", "status").stdout


@torch.no_grad()
def test_diffusers_loads_the_export_which_is_what_was_sampled(ran, folder):
    theirs = DiffusionPipeline.from_pretrained(ran["dvc"].folder / EXPORT)
    ours, _, _ = read_model(ran["dvc"].folder / "data/tiny/quantize/budget.safetensors", torch.device("cpu"))
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for timestep in (1, 500):
        found = theirs.unet(x, timestep - 1).sample
        assert (found - ours(x, torch.full((2,), timestep))).abs().max() <= 1e-4
        assert not torch.equal(found, UNet2DModel.from_pretrained(folder / "unet")(x, timestep - 1).sample)
    assert type(theirs.scheduler).__name__ == "DDPMScheduler"


def test_an_edited_export_is_made_again_and_nothing_else(ran):
    clone = ran["dvc"]
    file = clone.folder / EXPORT / "unet/config.json"
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    file.unlink()
    file.write_text("{}")
    clone.repro()  # from the cache
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before


def test_an_export_of_the_own_unet_is_refused_before_any_work(clone):
    params = tiny_params()
    params["profiles"]["tiny"]["export"] = ["budget"]
    clone.write_params(params)
    for command in (["dvc", "repro"], ["snakemake", "--cores", "1"]):
        refusal = clone.call(*command, check=False)
        assert refusal.returncode != 0
        line = (
            "export: found ['budget'], allowed is none for the family 'unet': exports are for models of the diffusers"
        )
        assert line in refusal.stdout + refusal.stderr
    assert not clone.outputs()
