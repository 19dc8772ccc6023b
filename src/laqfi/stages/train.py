"""Stage: train the diffusion U-Net; its EMA weights are the model everything else works on."""

import csv
import hashlib
import io as text
from pathlib import Path

import torch

from laqfi import cli, io
from laqfi.config import Profile
from laqfi.device import default_device
from laqfi.diffusion import from_uint8, linear_alphas_cumprod
from laqfi.rng import derive_seed
from laqfi.training import Trainer
from laqfi.training import train as run_training
from laqfi.unet import UNet, UNetConfig

POINTS = 200  # of the loss curve


def train(profile: Profile, *, dataset: Path, model: Path, loss: Path) -> None:
    """Write the EMA weights with the architecture in their header, and the loss curve as CSV."""
    images = from_uint8(io.read_array(dataset, "train_images"))
    torch.manual_seed(derive_seed("unet", profile.train.seed))
    config = UNetConfig(image_channels=images.shape[1], **profile.unet.model_dump())
    unet = UNet(config).to(default_device())
    alphas_cumprod = linear_alphas_cumprod(**profile.diffusion.model_dump())
    trainer = Trainer(unet, alphas_cumprod, profile.train)

    resume = model.parent / "resume" / f"{fingerprint(profile, dataset)}.safetensors"
    run_training(trainer, images, resume)
    metadata = {
        "unet": config.to_json(),
        "diffusion": profile.diffusion.model_dump(),
        "image": list(images.shape[1:]),
    }
    io.write_tensors(model, trainer.ema, metadata)
    io.write_text(loss, loss_curve(trainer.losses))
    resume.unlink(missing_ok=True)


def fingerprint(profile: Profile, dataset: Path) -> str:
    """Hash of all that decides the result: a state on disk is taken up only by the very same run."""
    code = [io.sha256(path) for path in sorted(Path(__file__).parents[1].glob("*.py"))]
    blocks = profile.model_dump_json(include={"threads", "diffusion", "unet", "train"})
    return hashlib.sha256("".join([blocks, io.sha256(dataset), *code]).encode()).hexdigest()[:16]


def loss_curve(losses: torch.Tensor) -> str:
    """CSV of the loss, averaged over equal stretches of training."""
    rows, done = [], 0
    for part in losses.cpu().tensor_split(min(POINTS, len(losses))):
        done += len(part)
        rows.append([done, f"{part.mean().item():.6f}"])
    buffer = text.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([["step", "loss"], *rows])
    return buffer.getvalue()


if __name__ == "__main__":
    cli.run(train)
