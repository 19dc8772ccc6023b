"""Small real things the tests share."""

import os
from pathlib import Path

import laqfi.stages  # noqa: F401  # isort: skip  # sets what it sets before PyTorch is loaded
import pytest
import torch
from threadpoolctl import threadpool_limits

from laqfi.diffusion.process import linear_alphas_cumprod
from laqfi.models.unet import UNet, Unet
from laqfi.params.whole import Params
from tiny import ROOT, tiny_params

# Workers with several threads each wait for each other: PyTorch's, and those of NumPy's linear algebra.
torch.set_num_threads(1)
threadpool_limits(1, user_api="blas")

# What sets git, DVC and Snakemake up for who runs the tests: to sign commits, another cache, a repository (in a hook).
for name in [name for name in os.environ if name.startswith(("GIT_", "DVC_", "SNAKEMAKE_"))]:
    del os.environ[name]
os.environ |= {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",  # the repository may belong to another user, as in a container
    "GIT_CONFIG_VALUE_0": "*",
    "DVC_GLOBAL_CONFIG_DIR": "/none",
    "DVC_SYSTEM_CONFIG_DIR": "/none",
    "SDNQ_USE_TORCH_COMPILE": "0",  # else it compiles for half a minute when it is imported
}

# A cluster, some minutes of faults, an emulator: `make slurm-test`, `make fault-test`, `make portable-test` name them.
collect_ignore = ["slurm", "faults", "portable", "records/test_damaged_record.py", "records/test_places.py"]
CLONES = {"by_dvc", "by_snakemake"}


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker makes the clones that both engines run and tests all of them; it begins first, as it takes longest."""
    groups = {item: "clones" if CLONES & set(item.fixturenames) else item.module.__name__ for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: groups[item] != "clones")


@pytest.fixture
def params() -> Params:
    return Params.model_validate(tiny_params())


@pytest.fixture
def profile(params):
    return params.profiles["tiny"]


@pytest.fixture
def unet() -> UNet:
    """A small U-Net in eval mode whose zero-initialised weights are not zero."""
    torch.manual_seed(0)
    model = UNet(Unet(family="unet", base_channels=4, attention=[2, 6], heads=2, dropout=0.1), image_channels=1).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def alphas_cumprod() -> torch.Tensor:
    return linear_alphas_cumprod(100, 0.001, 0.1)


@pytest.fixture(scope="session")
def mnist_mirror() -> Path:
    """The folder with the four MNIST files: beside the repository, or the one LAQFI_DATA_MIRROR names."""
    for folder in (ROOT.parent / "shared/mnist", Path(os.environ.get("LAQFI_DATA_MIRROR", "/nowhere"))):
        if (folder / "train-images-idx3-ubyte.gz").is_file():
            return folder
    pytest.skip("needs the four MNIST files in ../shared/mnist or in LAQFI_DATA_MIRROR")
