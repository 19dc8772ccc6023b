"""FID of FP32 by minutes of training: `python studies/training_minutes.py data/mnist --steps 2500 5000 10000`.

Each number of steps is a training of its own, by the recipe of the profile in that folder, whose learning rate falls to
zero at its end. The profile's own model is the last row. Images are those of one of its headlines.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import laqfi.stages  # noqa: F401  # isort: skip  # sets what it sets before PyTorch is loaded
import numpy as np
from matplotlib.figure import Figure

from laqfi.base import device, files
from laqfi.diffusion.params import Diffusion, Train
from laqfi.models import families
from laqfi.quality.judge import Judge
from laqfi.quality.params import Groups
from laqfi.records import Interval
from laqfi.report.cells import fid_cell
from laqfi.report.plots.canvas import axes, png
from laqfi.report.tables import as_csv, as_markdown
from laqfi.sampling.drawing import draw_images
from laqfi.sampling.params import Sample
from laqfi.stages import command
from laqfi.stages.train import train
from laqfi.storage.model_file import read_model


@dataclass(frozen=True)
class Trained:
    """`seconds` of training, starting and compiling included; None for a model of which nobody wrote them down."""

    steps: int
    seconds: float | None
    fid: Interval


@dataclass(frozen=True)
class Profile:
    """A profile that was run up to its training: what is in its folder."""

    folder: Path
    drawn: str

    def block(self, name: str, kind: object):
        return command.block(files.read_json(self.path), name, kind, self.path)

    @property
    def path(self) -> Path:
        return self.folder / "params.json"

    @property
    def recipe(self) -> Train:
        return self.block("train", Train)

    @property
    def drawing(self) -> Sample:
        sample = self.block("sample", Sample)
        draws = {"images": sample, **sample.headlines_of("fp32")}
        return command.choose(draws, self.drawn, str(self.path))

    def trained(self, steps: int) -> Trained:
        """The recipe with so many steps, trained now."""
        model, began = self.folder / f"training_minutes/{steps}.safetensors", time.perf_counter()
        model.parent.mkdir(exist_ok=True)
        train(
            self.block("diffusion", Diffusion),
            self.block("model", families.Settings),
            self.recipe.model_copy(update={"steps": steps}),
            self.block("threads", int),
            self.block("versions", dict[str, str]),
            dataset=self.folder / "dataset.npz",
            folders=self.folder / "folders.yaml",  # is not read: there is something to train
            out=model,
            loss=model.with_suffix(".csv"),
        )
        return Trained(steps, time.perf_counter() - began, self.fid(model))

    def its_own(self) -> Trained:
        """The model of the profile; Snakemake wrote down how long its training took."""
        written = self.folder / "benchmarks/train.tsv"
        seconds = float(written.read_text().splitlines()[1].split("\t")[0]) if written.exists() else None
        return Trained(self.recipe.steps, seconds, self.fid(self.folder / "model.safetensors"))

    def fid(self, model: Path) -> Interval:
        network, alphas_cumprod, metadata = read_model(model, device.default_device())
        how, groups = self.drawing, self.block("evaluate", Groups).groups
        images = draw_images(network, alphas_cumprod, tuple(metadata["image"]), how, how.images)
        judge = Judge(self.folder / "features.safetensors", self.folder / "reference.npz", groups)
        return judge.fids([judge.extract(seed) for seed in images])[0]


def rows(found: list[Trained]) -> list[dict[str, str]]:
    return [
        {
            "steps": f"{one.steps:,}",
            "minutes of training": "" if one.seconds is None else f"{one.seconds / 60:.1f}",
            "FID of FP32 [95 % CI]": fid_cell(one.fid),
        }
        for one in found
    ]


def page(found: list[Trained], profile: Profile) -> str:
    how = profile.drawing
    return (
        f"# FID by minutes of training: `{profile.folder.name}`\n\n{as_markdown(rows(found))}\n"
        f"{len(how.seeds)} seeds of {how.images:,} images, {how.sampler.upper()}, {how.steps} steps. Every row is a"
        f" training of its own with the seed {profile.recipe.seed}, whose learning rate falls to zero at its end;"
        " minutes are with starting and compiling. Intervals are of the noise of sampling alone.\n"
    )


def figure(found: list[Trained]) -> Figure:
    """FID against minutes, of those whose minutes are known."""
    timed = [one for one in found if one.seconds is not None]
    picture, axis = axes(6, 4, "FID of FP32 by training", "minutes of training", "FID [95 % CI]")
    minutes, fids = [one.seconds / 60 for one in timed], [one.fid for one in timed]
    bars = np.array([[fid.mean - fid.low, fid.high - fid.mean] for fid in fids]).T if fids else None
    axis.errorbar(minutes, [fid.mean for fid in fids], yerr=bars, marker="o", capsize=3)
    axis.set_ylim(bottom=0)
    return picture


def write(found: list[Trained], profile: Profile, out: Path) -> None:
    files.write_text(out / "training.csv", as_csv(rows(found)))
    files.write_text(out / "training.md", page(found, profile))
    files.write_bytes(out / "training.png", png(figure(found)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="of a profile that was run: data/mnist")
    parser.add_argument("--steps", type=int, nargs="*", default=[2500, 5000, 10000])
    parser.add_argument("--drawn", default="ddim", help="a headline of the profile, or images")
    parser.add_argument("--out", type=Path, required=True, help="folder for the table and the figure")
    arguments = parser.parse_args()
    profile, found = Profile(arguments.folder, arguments.drawn), []
    command.limit_threads(profile.block("threads", int))
    device.settle()
    for steps in [*arguments.steps, None]:
        found.append(profile.its_own() if steps is None else profile.trained(steps))
        found.sort(key=lambda one: one.steps)
        write(found, profile, arguments.out)  # after each: what was measured stays, whatever comes
    print(page(found, profile))


if __name__ == "__main__":
    main()
