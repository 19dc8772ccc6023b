"""Stage: the model everything else works on: trained, its EMA weights, or one that was trained elsewhere."""

import csv
import hashlib
import io as text
import json
from pathlib import Path

import torch

from laqfi.base import files, sources
from laqfi.base.block import Block
from laqfi.base.device import default_device
from laqfi.base.errors import LaqfiError
from laqfi.base.pictures import from_uint8
from laqfi.base.program import program
from laqfi.base.random import derive_seed
from laqfi.diffusion.params import Diffusion, Train
from laqfi.diffusion.process import linear_alphas_cumprod
from laqfi.diffusion.training import Trainer
from laqfi.diffusion.training import train as run_training
from laqfi.models import families
from laqfi.params.folders import located
from laqfi.stages import command
from laqfi.storage.described import header
from laqfi.storage.stored_file import write_stored

POINTS = 200  # of the loss curve


def train(
    diffusion: Diffusion | None,
    model: families.Settings,
    train: Train | None,
    threads: int,
    versions: dict[str, str],
    *,
    dataset: Path,
    folders: Path,
    out: Path,
    loss: Path,
) -> None:
    """Write the weights with the architecture in their header, and the loss curve as CSV, empty without a training.

    Where there is nothing to train, the weights are those of the folder with the hash in the settings, and with them
    are what the network is given beside image and timestep; `folders` says where these lie now.
    """
    images = from_uint8(files.read_array(dataset, "train_images"))
    if train is None:
        found = bring(model, folders, tuple(images.shape[1:]), dataset)
        write_stored(out, found, header(model, diffusion, images.shape[1:]))
        files.write_text(loss, loss_curve(torch.empty(0)))
        return
    torch.manual_seed(derive_seed("unet", train.seed))
    try:
        network = families.build(model, tuple(images.shape[1:])).to(default_device())
    except ValueError as error:
        raise LaqfiError(f"{dataset}: {error}") from error
    alphas_cumprod = linear_alphas_cumprod(**diffusion.model_dump())
    trainer = Trainer(network, alphas_cumprod, train)

    name = fingerprint([diffusion, model, train], threads, versions, dataset)
    if edited := sources.edited():
        raise LaqfiError(f"{edited} was changed since the stage began; run again")
    resume = out.parent / "resume" / f"{name}.safetensors"
    run_training(trainer, images, resume)
    write_stored(out, trainer.ema, header(model, diffusion, images.shape[1:]))
    files.write_text(loss, loss_curve(trainer.losses))
    resume.unlink(missing_ok=True)


def bring(model: families.Settings, folders: Path, image: tuple[int, ...], dataset: Path) -> dict[str, torch.Tensor]:
    """The tensors of a model file. Raises LaqfiError if they are not the network's, or if that is for other images."""
    given = families.given(model, place(folders, model.embeddings)) if families.given_shapes(model) else {}
    try:
        return families.weights(model, place(folders, model), image) | given
    except ValueError as error:
        raise LaqfiError(f"{dataset}: {error}") from error


def place(folders: Path, of: Block) -> Path:
    """Where that lies now whose hash the settings hold."""
    return Path(located(folders, of.sha256)).expanduser()


def fingerprint(blocks: list[Block], threads: int, versions: dict[str, str], dataset: Path) -> str:
    """Hash of all that decides the result: a state on disk is taken up only by the very same run."""
    settings = [block.model_dump_json() for block in blocks]
    everything = json.dumps([settings, threads, program(Path(__file__), versions), files.sha256(dataset)])
    return hashlib.sha256(everything.encode()).hexdigest()[:16]


def loss_curve(losses: torch.Tensor) -> str:
    """CSV of the loss, averaged over equal stretches of training."""
    rows, done = [], 0
    for part in losses.cpu().tensor_split(min(POINTS, len(losses))) if len(losses) else ():
        done += len(part)
        rows.append([done, f"{part.mean().item():.6f}"])
    buffer = text.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([["step", "loss"], *rows])
    return buffer.getvalue()


if __name__ == "__main__":
    command.run(train)
