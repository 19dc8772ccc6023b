"""The training loop: noise-prediction loss, EMA, and a state on disk from which a killed run goes on."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Event

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from laqfi.base import files
from laqfi.base.device import captured, compiled, deterministic
from laqfi.base.errors import LaqfiError
from laqfi.base.random import derive_seed, generator
from laqfi.diffusion.health import STRETCH, check_alive, check_finite, check_kept, check_learnt
from laqfi.diffusion.params import Train
from laqfi.diffusion.process import add_noise

SAVE_EVERY = 30.0  # seconds of work a crash may cost
SAVE_SHARE = 0.02  # of the time that writing the state may take: that of a large network takes seconds


def learning_rate(step: int, settings: Train) -> float:
    """Linear warm-up, then a cosine down to zero at the last step."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, images: int, device: torch.device) -> Tensor:
    return torch.from_numpy(generator("order", seed, epoch).permutation(images)).to(device)


def batch_indices(step: int, images: int, settings: Train, device: torch.device) -> Tensor:
    """Which images step `step` sees: a walk through one shuffled order per epoch, a function of the step alone."""
    epoch, start = divmod(step * settings.batch_size, images)
    epochs = range(epoch, epoch - (-(start + settings.batch_size) // images))
    orders = [epoch_order(settings.seed, one, images, device) for one in epochs]
    return torch.cat(orders)[start : start + settings.batch_size]


class Trainer:
    """Model, EMA and optimizer. All randomness of a step derives from its number, so the state is complete."""

    def __init__(self, network: nn.Module, alphas_cumprod: Tensor, settings: Train):
        self.device = next(network.parameters()).device
        self.network = network.train()
        self.denoiser = network
        if self.device.type == "cuda":
            network.to(memory_format=torch.channels_last)  # the layout of the tensor cores
            self.denoiser = compiled(network)
        self.settings = settings
        self.alphas_cumprod = alphas_cumprod.to(self.device, torch.float32)
        self.parameters = dict(network.named_parameters())
        self.ema = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=settings.lr, betas=(0.9, settings.beta2), fused=True
        )
        self.step = 0
        self.losses = torch.zeros(settings.steps, device=self.device)  # one tensor: many small ones pin a lot of memory
        self.gradients = captured(self.loss_and_gradients, self.device)

    def advance(self, x0: Tensor) -> None:
        """One optimizer step on the batch x0 [B, C, H, W] in [-1, 1]. On a GPU nothing is read back."""
        torch.manual_seed(derive_seed("train", self.settings.seed, self.step))
        loss = self.gradients(x0)
        nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.grad_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.settings)
        self.optimizer.step()
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        get_ema_multi_avg_fn(decay)(list(self.ema.values()), list(self.parameters.values()), None)
        self.losses[self.step] = loss
        self.step += 1

    def loss_and_gradients(self, x0: Tensor) -> Tensor:
        """The loss on x0 at random timesteps; its gradients take the place of those of the step before."""
        self.optimizer.zero_grad()
        timestep = torch.randint(1, len(self.alphas_cumprod), (len(x0),), device=self.device)
        noise = torch.randn_like(x0)
        x = add_noise(x0, noise, timestep, self.alphas_cumprod)
        on_gpu = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=on_gpu, cache_enabled=False):
            predicted = self.denoiser(x, timestep)
        loss = F.mse_loss(predicted.float(), noise)
        loss.backward()
        return loss.detach()

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
            # In the parameter's own layout: the fused optimizer pairs numbers by their place in memory.
            moments = {
                key: torch.empty_like(parameter).copy_(tensors[f"{key}.{name}"]) for key in ("exp_avg", "exp_avg_sq")
            }
            steps = torch.tensor(float(self.step), device=self.device)
            self.optimizer.state[parameter] = {"step": steps, **moments}


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

    The state is written to `resume` every `save_every` seconds (less often where writing it takes long) and on
    SIGTERM, and taken up from there, with the same bytes as a run that was never interrupted. Raises LaqfiError after
    SIGTERM, when the loss is NaN or infinite, and at the end for a network that has learnt nothing or lost it again.
    """
    if resume.exists():
        trainer.restore(files.read_tensors(resume)[0])
    images = images.to(trainer.device)
    saving = Saving(trainer, resume, save_every, clock)
    bar = tqdm(total=trainer.settings.steps, initial=trainer.step, desc="train", unit="step")
    with deterministic(trainer.device), termination() as asked, bar:
        while trainer.step < trainer.settings.steps:
            trainer.advance(images[batch_indices(trainer.step, len(images), trainer.settings, trainer.device)])
            bar.update()
            if asked.is_set():
                files.write_tensors(resume, trainer.state())
                raise LaqfiError(f"train: stopped by SIGTERM after step {trainer.step}; run again to go on from there")
            if trainer.step % STRETCH == 0:
                done = trainer.losses[: trainer.step]
                check_finite(done)
                check_alive(done)
                bar.set_postfix(loss=f"{done[-STRETCH:].mean().item():.4f}")
                saving.when_due()
    check_finite(trainer.losses)
    check_kept(trainer.losses)
    check_learnt(trainer.network, trainer.ema, images, trainer.alphas_cumprod, trainer.settings.seed)


class Saving:
    """Writes the state of `trainer` every so many seconds, but never for more than a small share of the time."""

    def __init__(self, trainer: Trainer, path: Path, every: float, clock: Callable[[], float]):
        self.trainer, self.path, self.every, self.clock = trainer, path, every, clock
        self.saved = clock()

    def when_due(self) -> None:
        began = self.clock()
        if began - self.saved > self.every:
            files.write_tensors(self.path, self.trainer.state())
            self.saved = self.clock()
            self.every = max(self.every, (self.saved - began) / SAVE_SHARE)
