"""Schedulers of diffusers by their config: the noise schedule that a network was trained on, and its own sampler."""

from collections.abc import Mapping

import torch
from torch import Tensor

# Those that step from the network's output alone and know ᾱ of every timestep.
SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
PREDICTIONS = ("epsilon", "sample", "v_prediction")
# What a config may not say, because the network then knows other times than the schedule's; and what it says instead.
PLAIN = {"timestep_type": "discrete", "use_flow_sigmas": False}
LEARNED = ("learned", "learned_range")  # variance types for which the network has a second half of channels


def check_scheduler(config: Mapping) -> None:
    """Raises ValueError for a scheduler or a kind of prediction that is none of those above."""
    if (name := config.get("_class_name")) not in SCHEDULERS:
        raise ValueError(f"scheduler._class_name: found {name!r}, allowed is one of {', '.join(SCHEDULERS)}")
    if config.get("trained_betas") is not None:
        raise ValueError("scheduler.trained_betas: found a list, allowed is a schedule by name (beta_schedule)")
    for key, plain in PLAIN.items():
        if (found := config.get(key) or plain) != plain:
            raise ValueError(f"scheduler.{key}: found {found!r}, allowed is {plain!r}: timesteps of the schedule")
    found = prediction_type(config)
    if found not in PREDICTIONS:
        raise ValueError(f"scheduler.prediction_type: found {found!r}, allowed is one of {', '.join(PREDICTIONS)}")
    try:
        made = make_scheduler(config)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(f"scheduler: {' '.join(str(error).split())}") from error
    if len(made.alphas_cumprod) != made.config.num_train_timesteps or made.config.num_train_timesteps < 2:
        raise ValueError(
            f"scheduler.num_train_timesteps: found {made.config.num_train_timesteps}, allowed is 2 or more"
        )


def make_scheduler(config: Mapping):
    """A new scheduler, without any steps yet. Its config holds the defaults of what `config` leaves out.

    Its tables are on the CPU, also where networks are built on the device "meta", which has no numbers.
    """
    import diffusers

    with torch.device("cpu"):
        return getattr(diffusers, config["_class_name"]).from_config(dict(config))


def prediction_type(config: Mapping) -> str:
    """What the network's output is: the noise, the clean image, or v = √ᾱ ε − √(1 − ᾱ) x_0 (Salimans and Ho 2022)."""
    return config.get("prediction_type", "epsilon")


def has_learned_variance(config: Mapping) -> bool:
    """Whether the network has a second half of output channels, which are no prediction of the noise."""
    return config.get("variance_type") in LEARNED


def alphas_cumprod(config: Mapping) -> Tensor:
    """ᾱ as float64 [T + 1]; index 0 is the clean image, so index t is the timestep t − 1 of diffusers."""
    table = make_scheduler(config).alphas_cumprod.double()
    return torch.cat([table.new_ones(1), table])


def timesteps(config: Mapping, steps: int) -> list[int]:
    """Timesteps, counted from 1, of the network's calls in sampling with `steps` steps.

    Raises ValueError where they are no integers, or the scheduler cannot make so many.
    """
    scheduler = make_scheduler(config)
    try:
        scheduler.set_timesteps(steps)
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(f"steps: found {steps}, refused by {config['_class_name']} ({error})") from error
    found = scheduler.timesteps.double()
    if len(found) == 0 or (found != found.round()).any() or found.min() < 0:
        raise ValueError(
            f"steps: found {steps}, for which {config['_class_name']} goes by timesteps that are no integers; allowed"
            " are steps that divide num_train_timesteps, or timestep_spacing: leading or trailing"
        )
    return [int(t) + 1 for t in found]
