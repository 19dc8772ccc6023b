"""Stage: all variants of a profile in one table, one metrics file, figures, and a page that opens offline."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from laqfi import records
from laqfi.base import files
from laqfi.base.errors import LaqfiError
from laqfi.quant.params import Quantize
from laqfi.report import differences, noise, tables
from laqfi.report.alike import alike
from laqfi.report.allocated import bound_table, prediction_table
from laqfi.report.differences import JudgedVariant
from laqfi.report.facts import facts, measuring, notes
from laqfi.report.findings import Finding, findings
from laqfi.report.layers import layer_table
from laqfi.report.naming import names
from laqfi.report.numbers import metrics
from laqfi.report.page import render
from laqfi.report.plots import fisher, formats, looks, model, quality, samples
from laqfi.report.plots.canvas import png
from laqfi.report.plots.svg import svg
from laqfi.report.recipes import recipe_table
from laqfi.report.sections import CAPTIONS, sections, split
from laqfi.report.tables import Table
from laqfi.sampling.params import Described
from laqfi.stages import command


@dataclass(frozen=True)
class Inputs:
    """Files that other stages wrote; `choices`, `evaluate` and `samples` are folders with one file per variant."""

    dataset: Path
    info: Path
    floor: Path
    table: Path
    loss: Path
    choices: Path
    evaluate: Path
    controls: Path
    samples: Path


@dataclass(frozen=True)
class Outputs:
    """Files to write; `figures` is a folder."""

    metrics: Path
    summary: Path
    markdown: Path
    figures: Path
    page: Path


@dataclass(frozen=True)
class Run:
    """What was measured of a profile, by variant in the order of params.yaml."""

    evaluations: dict[str, records.Evaluation]
    allocations: dict[str, records.Allocation]
    floors: records.Floors
    fisher: records.FisherTable
    controls: records.ControlTable
    network: records.FeatureNetwork

    @classmethod
    def read(cls, found: Inputs, order: list[str], recoveries: dict[str, records.LearnedTensors]) -> "Run":
        """Errors as in `records.read`."""
        allocations = {name: records.read(found.choices / f"{name}.json", records.Allocation) for name in order}
        return cls(
            evaluations={name: records.read(found.evaluate / f"{name}.json", records.Evaluation) for name in order},
            allocations={name: one.recovered(recoveries.get(name)) for name, one in allocations.items()},
            floors=records.read(found.floor, records.Floors),
            fisher=records.read(found.table, records.FisherTable),
            controls=records.read(found.controls, records.ControlTable),
            network=records.read(found.info, records.FeatureNetwork),
        )

    def check_seeds(self, seeds: list[int], found: Inputs) -> None:
        """Raises LaqfiError unless all was drawn from the same seeds: differences are formed seed by seed."""
        drawn = {found.evaluate / f"{name}.json": one.seeds for name, one in self.evaluations.items()}
        for path, others in (drawn | {found.controls: self.controls.seeds}).items():
            if others != seeds:
                raise LaqfiError(f"{path}: was drawn from the seeds {others}, allowed is sample.seeds = {seeds}")

    @cached_property
    def variants(self) -> dict[str, JudgedVariant]:
        return differences.against_fp32(self.evaluations)

    @cached_property
    def predicted(self) -> tuple[dict[str, tuple[float, float]], dict[str, tuple[float, float]]]:
        """By variant (predicted, measured) changes of the noise, and (predicted, error) of the median image."""
        changes = noise.changes(self.evaluations, self.allocations)
        return changes, noise.image_changes(changes, {name: one.images.fidelity for name, one in self.variants.items()})

    @cached_property
    def findings(self) -> dict[str, Finding]:
        uniform = differences.against_uniform(self.evaluations, self.allocations)
        return findings(self.variants, self.controls, uniform, self.fisher, self.allocations)


def report(
    sample: Described,
    quantize: Quantize,
    order: list[str],
    recoveries: dict[str, records.LearnedTensors],
    profile: str,
    *,
    found: Inputs,
    written: Outputs,
) -> None:
    """Read one evaluation per variant, in the order of params.yaml, and write what a reader looks at."""
    run = Run.read(found, order, recoveries)
    run.check_seeds(sample.seeds, found)
    files.write_json(written.metrics, metrics(run.variants, run.allocations, run.floors, run.controls))
    shown = tables_of(run)
    files.write_text(written.summary, tables.as_csv(shown["variants"].rows))
    sentences = [one.sentence for one in run.findings.values()]
    files.write_text(written.markdown, tables.summary_markdown(sentences, shown.values()))
    images = {"real": files.read_array(found.dataset, "train_images")}
    images |= {name: files.read_array(found.samples / f"{name}.npz", "images")[0] for name in order}
    figures = figures_of(run, quantize, files.read_text(found.loss), images)
    for name, figure in figures.items():
        files.write_bytes(written.figures / f"{name}.png", png(figure))
    files.write_text(written.page, page_of(run, profile, sample, shown, figures))


def page_of(run: Run, profile: str, sample: Described, shown: dict[str, Table], figures: dict[str, Figure]) -> str:
    """The page of a run, from its tables and figures by name."""
    base = run.evaluations["fp32"]
    further = split(shown) | allocated_tables(run)
    parts = sections(
        run.findings,
        {name: svg(figure, name, CAPTIONS[name][1]) for name, figure in figures.items()},
        further,
        alike(run.variants, run.allocations),
        notes(run.variants),
        measuring(sample, run.network, run.floors, base),
    )
    return render(f"laqfi: {profile}", facts(run.network, base, profile), parts, names(run.allocations))


def allocated_tables(run: Run) -> dict[str, Table]:
    return {"bound": bound_table(run.allocations), "prediction": prediction_table(*run.predicted)}


def tables_of(run: Run) -> dict[str, Table]:
    """By their names, in the order in which they are read."""
    return {
        "variants": tables.variant_table(run.variants),
        "headlines": tables.headline_table(run.variants, run.floors),
        "second_network": tables.second_network_table(run.variants),
        "floats": tables.uniform_table(run.evaluations, run.allocations),
        **tables.control_tables(run.controls),
        "recipes": recipe_table(run.variants, run.allocations),
        "layers": layer_table(run.fisher),
    }


def figures_of(run: Run, quantize: Quantize, loss: str, images: dict[str, np.ndarray]) -> dict[str, Figure]:
    """Figures by their names; loss: CSV text; images: uint8 [N, C, H, W] by title."""
    controls, looked = differences.controls_against_fp32(run.controls), looks.of_variants(run.allocations)
    return {
        "loss": model.loss_curve(loss),
        "fisher_timesteps": fisher.fisher_by_timestep(run.fisher, "empirical"),
        "fisher_timesteps_gauss_newton": fisher.fisher_by_timestep(run.fisher, "gauss_newton"),
        "fisher_tensors": fisher.fisher_by_tensor(run.fisher, quantize.fisher, quantize.timestep),
        "magnitude": fisher.magnitude(run.fisher),
        "size_fid": quality.size_against_fid(run.variants, looked, run.floors),
        "size_psnr": quality.size_against_fidelity(run.variants, looked, controls),
        "controls": quality.control_lines(controls),
        "over_bound": formats.over_bound(run.allocations, looked),
        "bits": formats.bits_map(run.allocations),
        "predicted": formats.predicted_against_measured(*run.predicted, looked),
        "noise_error": formats.noise_error(run.evaluations, looked),
        "samples": samples.sample_rows(images, samples.chosen(run.variants)),
    }


if __name__ == "__main__":
    command.run(report)
