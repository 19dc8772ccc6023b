"""What a reader must know to judge the tables: what was run, and how it was made and measured."""

from collections.abc import Mapping

from laqfi.quality import efficientnet
from laqfi.quality.classifier import FEATURES
from laqfi.quality.statistics import extrapolated
from laqfi.records import Evaluation, FeatureNetwork, Floors, Interval, Quality
from laqfi.report.cells import fid_cell, interval_cell
from laqfi.report.differences import JudgedVariant
from laqfi.sampling.params import Described, Headline

# Of the features of each network.
DIMENSIONS = {"classifier": FEATURES, "inception": 2048, "efficientnet_lite0": efficientnet.FEATURES}
BANDS = (
    "The words for sizes and FIDs (bands) are those of the report this work began with (Ewha-DoInJi 2024,"
    " Layer-Adaptive Quantization on Diffusion Model using Fisher Information); FID bands are relative to FP32 (below"
    " × 1.013 excellent, × 1.035 good, × 1.057 fair, else degraded)."
)
BELOW_ZERO = {
    "FID": "an FID is never negative; the end of its interval can be, as that reaches as far down as up: read it as"
    " zero",
    "KID": "KID is an estimate without bias, and its interval leaves out the noise of the real images it compares with,"
    " so of two sets that hardly differ it can come out below zero: read it as zero",
}


def facts(network: FeatureNetwork, base: Evaluation, profile: str) -> dict[str, str]:
    """What was run, by titles; `base` is FP32."""
    return {
        "Profile": f"`{profile}` of params.yaml",
        "Data": f"{network.dataset}: {network.images.train:,} training and {network.images.test:,} held-out images",
        "Model": f"network of {sum(base.parameters.values()):,} parameters, {base.bytes / 2**20:.2f} MiB in FP32",
        "Provenance": f"`provenance.json` beside this page (`make provenance PROFILE={profile}`)",
    }


def measuring(sample: Described, network: FeatureNetwork, floors: Floors, base: Evaluation) -> dict[str, str]:
    """How the images were drawn and judged, by titles."""
    rights = " and ".join(f"{100 * right:.2f} %" for right in network.accuracy)
    accuracy = f", {rights} right on held-out images" if rights else ""
    return {
        "Sampling": f"{drawn_by(sample)}; {len(sample.seeds)} seeds of {sample.images:,} images,"
        " the same noise for every variant",
        **{
            f"Drawn again as {name}": f"{drawn_by(again)}; {again.images:,} images per seed"
            for name, again in sample.headline.items()
        },
        "Features": f"{network.network}{accuracy}; SHA-256 {network.sha256[:16]}…",
        "Real-vs-real floor": f"FID {fid_cell(floors.fid)}, KID {interval_cell(floors.kid, 4)}"
        f" ({floors.images:,} held-out images){below_zero(fid=floors.fid, kid=floors.kid)}",
        "FP32": f"FID {fid_cell(base.fid)}, mean over the seeds, for {base.images:,} images"
        f"{at_infinity(base, network)}",
        "Intervals": "95 %, of the noise of sampling alone: one trained model, the feature networks as they are",
    }


def at_infinity(base: Quality, network: FeatureNetwork) -> str:
    """The FID without what few images add to it, where an interval holds it."""
    found = extrapolated(base.fid, base.images, DIMENSIONS[network.network])
    if found is None:
        return "; too few for an FID at infinitely many images"
    return f"; extrapolated to infinitely many images {fid_cell(found)}"


def below_zero(**found: Interval) -> str:
    """A word for each measure whose interval reaches below zero; nothing if none does."""
    words = [BELOW_ZERO[name.upper()] for name, one in found.items() if one.low < 0]
    return "".join(f"; {word}" for word in words)


def notes(variants: Mapping[str, JudgedVariant]) -> dict[str, str]:
    """Words of explanation, by the table that needs them."""
    found = {"measures": BANDS}
    if any(one.measured.kid.low < 0 for one in variants.values()):
        found["measures"] += f" Where KID is below zero: {BELOW_ZERO['KID']}."
    return found


def drawn_by(draw: Described | Headline) -> str:
    eta = f", eta {draw.eta:g}" if draw.sampler == "ddim" else ""
    products = {"float32": "", "tf32": ", products in TF32", "float16": ", products of float16"}[draw.precision]
    return f"{draw.sampler.upper()}, {draw.steps} steps{eta}{products}"
