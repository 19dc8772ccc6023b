"""Run a stage function from the command line: its signature is its interface."""

import argparse
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from laqfi import config
from laqfi.device import allow_tf32
from laqfi.errors import LaqfiError


def run(stage: Callable[..., None]) -> None:
    """Call `stage(profile, ..., key=path)` with what the command line says, and exit.

    `--params` and `--profile` choose the block handed over as `profile`; every keyword-only parameter is a
    `--flag` with a path. A stage that takes `variant` gets the block that `--variant` names; one that takes
    `variants` gets all of them. A LaqfiError becomes one line and exit code 1.
    """
    signature = inspect.signature(stage).parameters
    parser = argparse.ArgumentParser(description=(stage.__doc__ or "").splitlines()[0])
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--profile", required=True)
    if "variant" in signature:
        parser.add_argument("--variant", required=True)
    paths = [name for name, parameter in signature.items() if parameter.kind is parameter.KEYWORD_ONLY]
    for name in paths:
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        params = config.load(arguments.params)
        profile = choose(params.profiles, arguments.profile, f"{arguments.params}: profiles")
        given = {name: getattr(arguments, name) for name in paths}
        if "variant" in signature:
            given["variant"] = choose(params.variants, arguments.variant, f"{arguments.params}: variants")
        if "variants" in signature:
            given["variants"] = params.variants
        limit_threads(profile.threads)
        allow_tf32(False)
        stage(profile, **given)
    except LaqfiError as error:
        sys.exit(f"error: {error}")


def choose(blocks: dict, name: str, where: str):
    if name not in blocks:
        raise LaqfiError(f"{where}: found no {name!r}, allowed is one of {sorted(blocks)}")
    return blocks[name]


def limit_threads(threads: int) -> None:
    """Fix the number of threads: the order of floating-point sums, and with it the bytes, depends on it."""
    threadpool_limits(threads)
    torch.set_num_threads(threads)
