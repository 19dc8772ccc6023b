"""The training loop: noise-prediction loss, EMA, and a state on disk from which a killed run goes on."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Event

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from laqfi.base import files
from laqfi.base.errors import LaqfiError
from laqfi.base.random import derive_seed, generator
from laqfi.diffusion.params import Train
from laqfi.diffusion.process import add_noise

SAVE_EVERY = 30.0  # seconds of work a crash may cost


def learning_rate(step: int, settings: Train) -> float:
    """Linear warm-up, then a cosine down to zero at the last step."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, images: int) -> np.ndarray:
    return generator("order", seed, epoch).permutation(images)


def batch_indices(step: int, images: int, settings: Train) -> Tensor:
    """Which images step `step` sees: a walk through one shuffled order per epoch, a function of the step alone."""
    positions = range(step * settings.batch_size, (step + 1) * settings.batch_size)
    return torch.tensor([int(epoch_order(settings.seed, p // images, images)[p % images]) for p in positions])


class Trainer:
    """Model, EMA and optimizer. All randomness of a step derives from its number, so the state is complete."""

    def __init__(self, network: nn.Module, alphas_cumprod: Tensor, settings: Train):
        self.device = next(network.parameters()).device
        if self.device.type == "cuda":
            network.to(memory_format=torch.channels_last)  # the layout of the tensor cores
        self.network = network.train()
        self.settings = settings
        self.alphas_cumprod = alphas_cumprod.to(self.device, torch.float32)
        self.parameters = dict(network.named_parameters())
        self.ema = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=settings.lr, fused=True)
        self.step = 0
        self.losses = torch.zeros(settings.steps, device=self.device)  # one tensor: many small ones pin a lot of memory

    def advance(self, x0: Tensor, denoiser: nn.Module) -> None:
        """One optimizer step on the batch x0 [B, C, H, W] in [-1, 1]; `denoiser` is the U-Net, compiled or not."""
        torch.manual_seed(derive_seed("train", self.settings.seed, self.step))
        timestep = torch.randint(1, len(self.alphas_cumprod), (len(x0),), device=self.device)
        noise = torch.randn_like(x0)
        x = add_noise(x0, noise, timestep, self.alphas_cumprod)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            predicted = denoiser(x, timestep)
        loss = F.mse_loss(predicted.float(), noise)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.grad_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.settings)
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        get_ema_multi_avg_fn(decay)(list(self.ema.values()), list(self.parameters.values()), None)
        self.losses[self.step] = loss.detach()
        self.step += 1

    def state(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": tensor for name, tensor in self.parameters.items()}
        tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.items()}
        for name, parameter in self.parameters.items():
            moments = self.optimizer.state[parameter]
            tensors |= {f"{key}.{name}": moments[key] for key in ("exp_avg", "exp_avg_sq")}
        return tensors | {"losses": self.losses[: self.step].clone()}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.step = len(tensors["losses"])
        self.losses[: self.step] = tensors["losses"]
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"model.{name}"])
            self.ema[name].copy_(tensors[f"ema.{name}"])
            moments = {key: tensors[f"{key}.{name}"].to(self.device) for key in ("exp_avg", "exp_avg_sq")}
            steps = torch.tensor(float(self.step), device=self.device)
            self.optimizer.state[parameter] = {"step": steps, **moments}


def check_finite(losses: Tensor) -> None:
    """Raises LaqfiError if the latest loss is not a number: nothing after it could be."""
    if len(losses) and not torch.isfinite(losses[-1]):
        raise LaqfiError(
            f"train: the loss is {losses[-1].item()} at step {len(losses)}; lower train.lr or train.grad_clip"
        )


@contextmanager
def termination() -> Iterator[Event]:
    """An event that SIGTERM sets: what a cluster sends before it ends a job."""
    asked = Event()
    previous = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, previous)


def train(
    trainer: Trainer,
    images: Tensor,
    resume: Path,
    *,
    save_every: float = SAVE_EVERY,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Advance `trainer` to its last step on images [N, C, H, W] in [-1, 1].

    The state is written to `resume` every `save_every` seconds and on SIGTERM, and taken up from there, with the same
    bytes as a run that was never interrupted. Raises LaqfiError after SIGTERM, or when the loss is NaN or infinite.
    """
    if resume.exists():
        trainer.restore(files.read_tensors(resume)[0])
    cuda = trainer.device.type == "cuda"
    denoiser = torch.compile(trainer.network) if cuda else trainer.network
    saved = clock()
    bar = tqdm(total=trainer.settings.steps, initial=trainer.step, desc="train", unit="step")
    with termination() as asked, bar:
        while trainer.step < trainer.settings.steps:
            indices = batch_indices(trainer.step, len(images), trainer.settings)
            batch = images[indices].to(trainer.device)
            trainer.advance(batch.contiguous(memory_format=torch.channels_last) if cuda else batch, denoiser)
            bar.update()
            if asked.is_set():
                files.write_tensors(resume, trainer.state())
                raise LaqfiError(f"train: stopped by SIGTERM after step {trainer.step}; run again to go on from there")
            if trainer.step % 50 == 0:
                done = trainer.losses[: trainer.step]
                check_finite(done)
                bar.set_postfix(loss=f"{done[-50:].mean().item():.4f}")
                if clock() - saved > save_every:
                    files.write_tensors(resume, trainer.state())
                    saved = clock()
    check_finite(trainer.losses)
