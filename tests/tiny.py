"""A complete run that takes seconds: the smallest data, model and number of images that still mean something."""

from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]

TINY = {
    "threads": 1,
    "dataset": {"name": "digits"},
    "features": {"network": "classifier", "epochs": 1, "batch_size": 64, "lr": 0.002, "seeds": [0, 1]},
    "diffusion": {"timesteps": 100, "beta_start": 0.001, "beta_end": 0.1},
    "model": {"family": "unet", "base_channels": 4, "attention": [2, 6], "heads": 2, "dropout": 0.1},
    "train": {
        "steps": 6,
        "batch_size": 16,
        "lr": 0.01,
        "warmup": 2,
        "beta2": 0.999,
        "ema": 0.9,
        "grad_clip": 1.0,
        "seed": 0,
    },
    "fisher": {"timesteps": [1, 50, 100], "bins": [1, 100], "images": 4, "chunk": 2, "seed": 0},
    "curvature": {"timesteps": [1, 100], "images": 8, "chunk": 4, "seed": 0},
    "calibration": {"steps": 2, "images": 4, "seed": 0},
    "quantize": {"fisher": "empirical", "timestep": 1},
    "sample": {
        "sampler": "ddim",
        "steps": 3,
        "clip": True,
        "seeds": [0, 1],
        "images": 100,
        "batch_size": 60,
        "headline": {"ancestral": {"sampler": "ddpm", "steps": 4, "images": 20, "variants": ["fp32", "budget"]}},
    },
    "evaluate": {"groups": 4, "noise_images": 8, "noise_timesteps": [1, 100], "seed": 0},
    "controls": {"budgets": [{"ratio": 5.0}], "images": 10},
}
VARIANTS = {
    "fp32": {"policy": "fp32"},
    "threshold": {"policy": "threshold", "tau": 0.1},
    "ratio": {"policy": "ratio", "p": 0.25},
    "budget": {
        "policy": "budget",
        "target": {"ratio": 5.0},
        "formats": ["int3", "int4", "int8", "float16"],
        "rounding": "gptq",
    },
}


def tiny_params() -> dict:
    """A params.yaml that runs in seconds, as plain data a test may change."""
    return yaml.safe_load(
        yaml.safe_dump({"active": ["tiny"], "variants": VARIANTS, "profiles": {"tiny": TINY}}, sort_keys=False)
    )


def leaves(tree, place: str = "") -> Iterator[tuple[str, object]]:
    """Every value that is no block and no list, with its place."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, f"{place}.{key}".strip("."))
    else:
        yield place, tree


def one_variant_params() -> dict:
    """`tiny_params` with FP32 alone: every stage runs once."""
    params = tiny_params()
    params["variants"] = {"fp32": params["variants"]["fp32"]}
    for settings in params["profiles"]["tiny"]["sample"]["headline"].values():
        settings["variants"] = ["fp32"]
    return params
