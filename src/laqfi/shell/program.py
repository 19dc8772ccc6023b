"""The program `laqfi`."""

import laqfi.stages  # noqa: F401  # isort: skip  # sets what it sets before NumPy is loaded

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from laqfi.base.errors import LaqfiError

QUANTIZE = """\
Make the diffusion model in a folder that diffusers wrote smaller.

The model's weights are measured on your images (Fisher information and curvature), stored in 2 to 8 bits or half
precision, whatever changes the predicted noise least at the size you ask for, and written as a folder that diffusers
0.40 or newer loads packed, with the package sdnq beside it. At the end it says what that cost. Nothing is written
until then.
"""
EXPORT = """\
Write a model that laqfi stored as a folder that diffusers 0.40 or newer loads packed, with the package sdnq beside it.
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="laqfi", description="Smaller diffusion models, by what every weight matters.")
    commands = made.add_subparsers(dest="command", required=True)
    shape = argparse.RawDescriptionHelpFormatter

    one = commands.add_parser("quantize", help="make a folder of diffusers smaller", description=QUANTIZE)
    one.formatter_class = shape
    one.add_argument("folder", type=Path, help="a pipeline of U-Net and scheduler, or the U-Net alone")
    one.add_argument("--target", required=True, help="8x (times smaller than float32), or bytes: 300kB, 20MB, 1.5GiB")
    one.add_argument("--data", type=Path, required=True, help="folder of images: PNG, JPEG or WebP, some dozens do")
    one.add_argument("--out", type=Path, required=True, help="folder to write, new or empty")
    one.add_argument("--scheduler", type=Path, help="scheduler_config.json, of a folder that has none")
    one.add_argument("--class-label", type=int, help="of a model with classes, the one to measure and draw")
    one.add_argument("--embeddings", type=Path, help="of a conditional model: safetensors with encoder_hidden_states")
    one.add_argument("--images", type=count, default=64, help="to measure on, at most (64)")
    one.add_argument("--draw", type=count, default=16, help="images to draw and compare at the end (16)")
    one.add_argument("--steps", type=count, default=50, help="of the model's own scheduler for each of them (50)")
    one.add_argument("--chunk", type=count, help="images measured at a time; fewer take less memory (by their size)")
    one.add_argument("--seed", type=natural, default=0, help="of all noise (0)")
    add_machine(one)

    two = commands.add_parser("export", help="write a stored model as a folder of diffusers", description=EXPORT)
    two.formatter_class = shape
    two.add_argument("model", type=Path, help="data/PROFILE/quantize/VARIANT.safetensors, say")
    two.add_argument("--source", type=Path, help="folder that the model came from, to be like it (a plain pipeline)")
    two.add_argument("--out", type=Path, required=True, help="folder to write: new, empty, or an earlier export")
    return made


def add_machine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", choices=["cuda", "cpu"], help="to work on (a GPU, if PyTorch finds one)")
    command.add_argument("--threads", type=count, help="of the processor; the last digits depend on it (all cores)")


def count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed is 1 to 1000000")
    return int(text)


def natural(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed is 0 and more")
    return int(text)


def quantize(arguments: argparse.Namespace) -> str:
    choose_device(arguments.device)
    from laqfi.base import device
    from laqfi.shell.cost import text
    from laqfi.shell.whole import Asked, quantize_folder
    from laqfi.stages.command import limit_threads

    if arguments.threads:
        limit_threads(arguments.threads)
    device.settle()
    given = {key: value for key, value in vars(arguments).items() if key in Asked.__dataclass_fields__}
    asked = Asked(**given)
    return text(asked, quantize_folder(asked))


def choose_device(wanted: str | None) -> None:
    """Before PyTorch looks for GPUs. Raises LaqfiError if there is none to be had."""
    if wanted == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from laqfi.base.device import default_device

    if wanted == "cuda" and default_device().type != "cuda":
        raise LaqfiError("--device: found cuda, allowed is cpu: PyTorch finds no GPU")


def export(arguments: argparse.Namespace) -> str:
    from laqfi.stages.export import write

    write(arguments.model, arguments.out, arguments.source)
    return f"written: {arguments.out}"


def main(words: Sequence[str] | None = None) -> None:
    """Do what the command line says. What cannot be done is one line on stderr and exit code 1."""
    arguments = parser().parse_args(words)
    try:
        print({"quantize": quantize, "export": export}[arguments.command](arguments))
    except LaqfiError as error:
        sys.exit(f"error: {error}")
