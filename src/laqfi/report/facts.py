"""What a reader must know to judge the tables: the list at the head of the page."""

from laqfi.records import Evaluation, FeatureNetwork, Floors
from laqfi.report.tables import fid_cell, interval_cell
from laqfi.sampling.params import Described, Headline


def facts(sample: Described, network: FeatureNetwork, floors: Floors, base: Evaluation) -> dict[str, str]:
    """By their titles; `base` is FP32."""
    rights = " and ".join(f"{100 * right:.2f} %" for right in network.accuracy)
    accuracy = f", {rights} right on held-out images" if rights else ""
    return {
        "Data": f"{network.dataset}: {network.images.train:,} training and {network.images.test:,} held-out images",
        "Model": f"network of {sum(base.parameters.values()):,} parameters, {base.bytes / 2**20:.2f} MiB in FP32",
        "Sampling": f"{drawn_by(sample)}; {len(sample.seeds)} seeds of {sample.images:,} images,"
        " the same noise for every variant",
        **{
            f"Drawn again as {name}": f"{drawn_by(again)}; {again.images:,} images per seed"
            for name, again in sample.headline.items()
        },
        "Features": f"{network.network}{accuracy}; SHA-256 {network.sha256[:16]}…",
        "Real-vs-real floor": f"FID {fid_cell(floors.fid)}, KID {interval_cell(floors.kid, 4)}"
        f" ({floors.images:,} held-out images)",
        "FP32": f"FID {fid_cell(base.fid)}, mean over the seeds",
    }


def drawn_by(draw: Described | Headline) -> str:
    eta = f", eta {draw.eta:g}" if draw.sampler == "ddim" else ""
    tf32 = ", products in TF32" if draw.precision == "tf32" else ""
    return f"{draw.sampler.upper()}, {draw.steps} steps{eta}{tf32}"
