"""Stage: all variants of a profile in one table, one metrics file, figures, and a page that opens offline."""

from pathlib import Path

from laqfi import records
from laqfi.base import files
from laqfi.quant.params import Quantize
from laqfi.report import comparisons, plots, tables
from laqfi.report.page import render
from laqfi.sampling.params import Described
from laqfi.stages import command


def report(
    sample: Described,
    quantize: Quantize,
    order: list[str],
    *,
    dataset: Path,
    info: Path,
    floor: Path,
    table: Path,
    loss: Path,
    choices: Path,
    evaluate: Path,
    controls: Path,
    samples: Path,
    metrics: Path,
    summary: Path,
    markdown: Path,
    figures: Path,
    page: Path,
) -> None:
    """Read one evaluation per variant, in the order of params.yaml, and write what a reader looks at."""
    evaluations = {name: records.read(evaluate / f"{name}.json", records.Evaluation) for name in order}
    formats = {name: records.read(choices / f"{name}.json", records.Choices) for name in order}
    real_floor, fisher = records.read(floor, records.Floor), records.read(table, records.FisherTable)
    compared = records.read(controls, records.Controls)
    numbers = tables.metrics(evaluations, formats, real_floor, compared)
    files.write_json(metrics, numbers | comparisons.as_metrics(evaluations, formats, compared))
    rows = tables.summary(evaluations)
    found = {
        "Every variant": rows,
        "Drawn again, with more images or another sampler": tables.headline(evaluations, real_floor),
        "FP16: does it matter which tensors stay in FP32?": comparisons.uniform_rows(evaluations, formats),
        "The same bytes, given out by other ideas of importance (PSNR, FID − FP32)": tables.controls(compared),
        "From which size on it matters who gets the bits (FID of the control − FID of Fisher)": (
            comparisons.fisher_rows(compared)
        ),
        "Fisher information by layer, over the largest": comparisons.layer_rows(fisher),
    }
    files.write_text(summary, tables.as_csv(rows))
    files.write_text(markdown, tables.summary_markdown(found))

    images = {"real": files.read_array(dataset, "train_images")}
    images |= {name: files.read_array(samples / f"{name}.npz", "images")[0] for name in order}
    drawn = {
        "loss": plots.loss_curve(files.read_text(loss)),
        "fisher_timesteps": plots.fisher_by_timestep(fisher, "empirical"),
        "fisher_timesteps_gauss_newton": plots.fisher_by_timestep(fisher, "gauss_newton"),
        "fisher_tensors": plots.fisher_by_tensor(fisher, quantize.fisher, quantize.timestep),
        "magnitude": plots.magnitude(fisher),
        "size_fid": plots.size_against_fid(evaluations, real_floor),
        "size_psnr": plots.size_against_psnr(evaluations, compared),
        "controls": plots.controls(compared),
        "over_bound": plots.over_bound(formats),
        "bits": plots.bits_map(formats),
        "predicted": plots.predicted_against_measured(tables.noise_changes(evaluations, formats)),
        "noise_error": plots.noise_error(evaluations),
        "samples": plots.sample_sheets(images),
    }
    for name, payload in drawn.items():
        files.write_bytes(figures / f"{name}.png", payload)
    facts = tables.facts(sample, records.read(info, records.Info), real_floor, evaluations["fp32"])
    files.write_text(page, render(facts, found, drawn))


if __name__ == "__main__":
    command.run(report)
