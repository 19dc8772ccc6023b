"""What a smaller model cost, as a person reads it."""

import math

from laqfi.api import STEPS
from laqfi.shell.whole import HELD_OUT, Asked, Cost


def text(asked: Asked, cost: Cost) -> str:
    """A line for each kind of cost, its name first."""
    before = 4 * cost.parameters
    parts = ", ".join(f"{part} {seconds:.0f}" for part, seconds in cost.seconds.items())
    drawn = f"{asked.draw} images in {asked.steps} steps of the model's own scheduler, from the same noise"
    rows = {
        "written": str(asked.out),
        "weights": f"{before:,} bytes in float32, {cost.bytes:,} now: {before / cost.bytes:.2f} times smaller",
        "files": f"{cost.file_before:,} bytes before, {cost.file_after:,} now, names and shapes included",
        "noise": f"mean squared error {cost.noise_mse:.2e} of the predicted noise, whose variance is 1, at {STEPS}"
        f" timesteps of up to {HELD_OUT} held-out images",
        "images": f"median PSNR {decibels(cost.psnr.value)} dB [{decibels(cost.psnr.low)}, {decibels(cost.psnr.high)}]"
        f" of {drawn}",
        "seconds": f"{sum(cost.seconds.values()):.0f}: {parts}",
    }
    return "\n".join(f"{name:8} {row}" for name, row in rows.items())


def decibels(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "∞" if value > 0 else "-∞"
