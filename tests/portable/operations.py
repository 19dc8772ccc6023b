"""One of each thing that decides bytes, as SHA-256: `python tests/portable/operations.py` prints them as JSON."""

import hashlib
import json

import laqfi.stages  # noqa: F401  # isort: skip  # sets what it sets before PyTorch is loaded
import numpy as np
import torch

from laqfi.base import pictures
from laqfi.base.random import generator
from laqfi.diffusion.params import Train
from laqfi.diffusion.process import linear_alphas_cumprod
from laqfi.diffusion.training import Trainer
from laqfi.models.unet import UNet, Unet
from laqfi.quality import kernel, statistics
from laqfi.quality.classifier import FeatureNet, fit
from laqfi.quality.params import Classifier
from laqfi.quant.knapsack import allocate
from laqfi.quant.rounding import store
from laqfi.sensitivity.curvature import compensations
from laqfi.sensitivity.fisher import fisher_maps
from laqfi.storage.formats import Format
from laqfi.storage.layout import Layout


def digest(*values) -> str:
    found = hashlib.sha256()
    for value in values:
        array = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        found.update(array.tobytes())
    return found.hexdigest()


def operations() -> dict[str, str]:
    """What each gave, on small random data."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random = generator("operations")
    images = torch.from_numpy(random.standard_normal((8, 1, 8, 8), dtype="float32")).clamp(-1, 1)
    alphas_cumprod = linear_alphas_cumprod(100, 0.001, 0.1)
    unet = UNet(Unet(family="unet", base_channels=4, attention=[2, 6], heads=2, dropout=0.1), image_channels=1)
    settings = Train(steps=2, batch_size=8, lr=0.01, warmup=1, beta2=0.999, ema=0.9, grad_clip=1.0, seed=0)
    trainer = Trainer(unet, alphas_cumprod, settings)
    found = {}
    for step in range(settings.steps):
        trainer.advance(images)
        found[f"training step {step + 1}"] = digest(*trainer.state().values())
    for parameter in unet.eval().parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    maps = fisher_maps(unet, images[:2], alphas_cumprod, timesteps=[50], bins=[100], chunk=2, seed=0)
    found["Fisher information"] = digest(*maps.per_weight.values())
    measured = dict(compensations(unet, images[:4], alphas_cumprod, timesteps=[50], chunk=4, seed=0))
    found["compensation"] = digest(*(part for one in measured.values() for part in vars(one).values()))
    name = "layers.3.block1.conv1.weight"
    weight = dict(unet.named_parameters())[name].detach()
    layout = Layout(Format("int4"), tuple(weight.shape))
    parts = store(weight, layout, "fisher", maps.per_weight[name], "gptq", measured[name]).parts
    found["GPTQ"] = digest(*parts.values())
    features = random.standard_normal((200, 84)) @ random.standard_normal((84, 84))
    target = statistics.Reference.of(*statistics.mean_and_covariance(features[:100]))
    fid = statistics.jackknife_fid(features[100:], target, 4)
    found["FID"] = digest(
        fid.value,
        fid.left_out,
        *statistics.interval([fid]).model_dump().values(),
    )
    real = kernel.KernelReference(features[:100], kernel.mean_within(features[:100]))
    kid = kernel.jackknife_kid(features[100:], real, 4)
    found["KID"] = digest(kid.value, kid.left_out)
    network = FeatureNet(1, 8, 10)
    labels = torch.arange(8)
    fit(network, images, labels, Classifier(network="classifier", epochs=2, batch_size=8, lr=0.002, seeds=[0]), seed=0)
    found["classifier"] = digest(*network.state_dict().values())
    costs, sizes = random.lognormal(0, 9, (40, 6)), np.tile(np.arange(1, 7), (40, 1))
    found["allocation"] = digest(allocate(costs.tolist(), sizes.tolist(), 120))
    found["picture"] = hashlib.sha256(pictures.png(random.integers(0, 256, (64, 64, 1), dtype="uint8"))).hexdigest()
    return found


if __name__ == "__main__":
    print(json.dumps(operations()))
