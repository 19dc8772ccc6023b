"""Recovery: a stored network learns to predict the noise that FP32 predicts, in the formats and bytes that it has.

Distillation with straight-through rounding, as in EfficientDM (He et al. 2024), whose rates in proportion to a layer's
steps are what one rate in units of codes is. Not followed: low-rank updates that are merged into the weights, where the
stored numbers themselves learn; and LSQ's scaling of the gradient of steps, which Adam does not see.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from laqfi.base import files
from laqfi.base.device import captured, deterministic, tf32, upload
from laqfi.base.errors import LaqfiError
from laqfi.base.random import generator
from laqfi.diffusion.process import add_noise
from laqfi.diffusion.training import SAVE_EVERY, Saving, learning_rate, termination
from laqfi.quant.calibration import CalibrationSet
from laqfi.quant.learned import LearnedTensor
from laqfi.quant.recipe import Recover

DEAR = 10  # times the slope of D ∝ 2^(−2R), what a bit is worth where it is spent well: at that itself, codes grew
CHECKS = 5  # of the size of a file with a limit: at the half of the iterations, of those that are left, and so on
WARM_UP = 50  # iterations; a shorter recovery has a quarter of its own
SHOW_EVERY = 10
TRIED = 32  # batches on which what was learned is compared with what it began with

Draw = Callable[[int], tuple[Tensor, Tensor]]  # x_t [B, C, H, W] and t [B] of an iteration, a function of its number


class Schedule(NamedTuple):
    """What `learning_rate` goes by: up to 1 in the warm-up, then down to 0."""

    steps: int
    warmup: int
    lr: float = 1.0


def noised_images(images: Tensor, alphas_cumprod: Tensor, settings: Recover) -> Draw:
    """Images [N, C, H, W] in [-1, 1] with noise, at timesteps that all count alike."""

    def draw(iteration: int) -> tuple[Tensor, Tensor]:
        random = generator("recover", settings.seed, iteration)
        x0 = images[torch.from_numpy(random.integers(0, len(images), settings.batch_size))]
        t = torch.from_numpy(random.integers(1, len(alphas_cumprod), settings.batch_size))
        noise = torch.from_numpy(random.standard_normal(x0.shape, dtype="float32"))
        return add_noise(x0, noise, t, alphas_cumprod), t

    return draw


def samples(x: Tensor, timesteps: list[int], settings: Recover) -> Draw:
    """x_t of FP32's own sampling: x [steps, images, C, H, W]."""

    def draw(iteration: int) -> tuple[Tensor, Tensor]:
        random = generator("recover", settings.seed, iteration)
        step, image = (random.integers(0, count, settings.batch_size) for count in x.shape[:2])
        return x[step, image], torch.tensor(timesteps)[step]

    return draw


def draws(settings: Recover, images: Tensor, alphas_cumprod: Tensor, found: CalibrationSet) -> tuple[Draw, Draw]:
    """What is learned from, and what that is tried on: others of the same kind, a quarter of all but at most 1,000."""
    last = min(1000, -(-(len(images) if settings.data == "images" else found.x.shape[1]) // 4))
    if settings.data == "images":
        return tuple(noised_images(some, alphas_cumprod, settings) for some in (images[:-last], images[-last:]))
    x = found.x.cpu()
    return tuple(samples(some, found.timesteps, settings) for some in (x[:, :-last], x[:, -last:]))


@dataclass(eq=False)
class Recovery:
    """Student, teacher and optimizer. All randomness of an iteration derives from its number: the state is complete.

    Where the file has a limit, `over` tells by how many bytes it would be above, stored as it is now. What the bits of
    codes are above those that would do, per weight, then costs `price` beside the error.
    """

    student: nn.Module
    teacher: nn.Module
    learned: Mapping[str, LearnedTensor]  # of the student, by the parameter that each stands for
    draws: tuple[Draw, Draw]
    settings: Recover
    over: Callable[[], int] | None = None
    price: float = 0.0

    def __post_init__(self):
        self.device = next(self.teacher.parameters()).device
        self.parameters = {f"{n}|{k}": p for n, one in self.learned.items() for k, p in one.named_parameters()}
        rates = {True: self.settings.code_lr, False: self.settings.lr}
        groups = {
            codes: [one for name, one in self.parameters.items() if name.endswith("|places") == codes]
            for codes in rates
        }
        self.optimizer = torch.optim.Adam(
            [{"params": some, "lr": rates[codes], "rate": rates[codes]} for codes, some in groups.items() if some],
            fused=True,
        )
        self.schedule = Schedule(self.settings.iterations, min(WARM_UP, self.settings.iterations // 4))
        self.step = 0
        self.codes = [one for one in self.learned.values() if one.places is not None]
        iterations = self.settings.iterations
        self.checks = {0, *(iterations - (iterations >> k) for k in range(1, CHECKS + 1))} if self.limited else set()
        self.weights = sum(one.places.numel() for one in self.codes)
        self.allowed = math.inf  # bits of a code
        self.gradients = captured(self.loss_and_gradients, self.device)

    @property
    def limited(self) -> bool:
        return self.over is not None and bool(self.codes)

    def bits(self) -> Tensor:
        """Of a code, the mean of all that learn."""
        return sum(one.bits() for one in self.codes) / self.weights

    @torch.no_grad()
    def check_size(self) -> None:
        self.allowed = self.bits().item() - 8 * self.over() / self.weights

    def drawn(self, draw: Draw, iteration: int) -> list[Tensor]:
        return [upload(one, self.device) for one in draw(iteration)]

    def error(self, x: Tensor, t: Tensor) -> Tensor:
        """Mean squared difference of the predicted noise to the teacher's."""
        with torch.no_grad():
            expected = self.teacher(x, t)
        return (self.student(x, t) - expected).square().mean()

    def advance(self) -> Tensor:
        """One iteration; its loss."""
        if self.step in self.checks:
            self.check_size()
        allowed = torch.tensor(self.allowed, dtype=torch.float32)
        loss = self.gradients(*self.drawn(self.draws[0], self.step), upload(allowed, self.device))
        share = learning_rate(self.step, self.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * share
        self.optimizer.step()
        for one in self.learned.values():
            one.keep_in_range()
        self.step += 1
        return loss

    def loss_and_gradients(self, x: Tensor, t: Tensor, allowed: Tensor) -> Tensor:
        """The loss on x_t; its gradients, those of what the bits of codes cost among them, are then the parameters'."""
        self.optimizer.zero_grad()
        loss = self.error(x, t)
        (loss + self.price * (self.bits() - allowed).clamp(min=0) if self.limited else loss).backward()
        return loss.detach()

    @torch.no_grad()
    def tried_error(self) -> float:
        """On what nothing is learned from."""
        return sum(self.error(*self.drawn(self.draws[1], one)).item() for one in range(TRIED)) / TRIED

    def state(self) -> dict[str, Tensor]:
        tensors = {f"value.{name}": parameter for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            moments = self.optimizer.state[parameter]
            tensors |= {f"{key}.{name}": moments[key] for key in ("exp_avg", "exp_avg_sq")}
        return tensors | {"step": torch.tensor(self.step), "allowed": torch.tensor(self.allowed, dtype=torch.float64)}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.step, self.allowed = int(tensors["step"]), tensors["allowed"].item()
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"value.{name}"])
            moments = {
                key: torch.empty_like(parameter).copy_(tensors[f"{key}.{name}"]) for key in ("exp_avg", "exp_avg_sq")
            }
            steps = torch.tensor(float(self.step), device=self.device)
            self.optimizer.state[parameter] = {"step": steps, **moments}


def recover(
    recovery: Recovery,
    resume: Path,
    *,
    save_every: float = SAVE_EVERY,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[float, float]:
    """Advance to the last iteration; the mean squared error before and after, on what nothing is learned from.

    The state is written to `resume` every `save_every` seconds and on SIGTERM, and taken up from there, with the same
    bytes as a run that was never interrupted. A GPU learns with products in TF32; both errors are measured in
    float32. Raises LaqfiError after SIGTERM, and for a loss that is not finite.
    """
    before = recovery.tried_error()
    recovery.price = DEAR * 2 * math.log(2) * before
    if resume.exists():
        recovery.restore(files.read_tensors(resume)[0])
    saving = Saving(recovery, resume, save_every, clock)
    bar = tqdm(total=recovery.settings.iterations, initial=recovery.step, desc="recover", unit="step")
    with deterministic(recovery.device), tf32(True), termination() as asked, bar:
        while recovery.step < recovery.settings.iterations:
            loss = recovery.advance()
            bar.update()
            if asked.is_set():
                files.write_tensors(resume, recovery.state())
                raise LaqfiError(f"recover: stopped by SIGTERM at step {recovery.step}; run again to go on from there")
            if recovery.step % SHOW_EVERY == 0:
                check_finite(loss, recovery.step)
                bar.set_postfix(loss=f"{loss.item():.2e}")
                saving.when_due()
    return before, recovery.tried_error()


def check_finite(loss: Tensor, step: int) -> None:
    if not loss.isfinite():
        raise LaqfiError(f"recover: the loss is {loss.item()} at step {step}; lower recover.lr or recover.code_lr")
