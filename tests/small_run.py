"""What stages would have measured of a run with three variants, small enough for every number to have a closed form."""

import math

import numpy as np
from scipy import stats

from laqfi.quality.statistics import Jackknifed, record_of
from laqfi.records import (
    AllocatedTensor,
    Allocation,
    BitsPerWeight,
    ControlRow,
    ControlTable,
    Evaluation,
    FisherKind,
    FisherTable,
    Floors,
    Interval,
    Jackknife,
    Means,
    Quality,
    Recipe,
    StoredLayout,
    StoredQuality,
)

# Half of the 95 % interval of `fid(…, spread=1)`: two groups, of which one left out moves the FID by ± 1, leave one
# degree of freedom to each of the two seeds; each seed's variance is ½ (1² + 1²) = 1, that of the mean 2 / 2² = ½.
HALF = stats.t.ppf(0.975, 2) * math.sqrt(0.5)


PIXELS = 64
NEAR, FAR = 64, 1600  # squared errors of an image: 48.1 and 34.2 dB


def fid(mean: float, spread: float) -> Jackknife:
    """Over two seeds, ½ below and above the mean; in each of two groups an FID of ± `spread` beside its seed's."""
    seeds = (mean - 0.5, mean + 0.5)
    return record_of([Jackknifed(seed, np.array([seed - spread, seed + spread])) for seed in seeds])


def quality(mean: float, spread: float, squared_error: int, images: int = 40) -> Quality:
    """Every image has the squared error but the last of each seed, which has none.

    A second network sees twice the FID; KID is a thousandth of it.
    """
    return Quality(
        images=images,
        pixels=PIXELS,
        fid=fid(mean, spread),
        fid_again=fid(2 * mean, 2 * spread),
        kid=fid(mean / 1000, spread / 1000),
        squared_error=[[squared_error] * (images - 1) + [0]] * 2,
    )


def evaluation(mib: float, noise: float, measured: Quality, **headlines: Quality) -> Evaluation:
    return Evaluation(
        **dict(measured),
        bytes=int(mib * 2**20),
        file_bytes=int(1.25 * mib * 2**20),
        parameters={"float32": 1000, "float16": 500},
        seeds=[0, 1],
        noise_mse={1000: 4 * noise, 1: noise, 50: noise},
        headlines=headlines,
    )


EVALUATIONS = {
    "fp32": evaluation(4, 0, quality(20, 1, 0), large=quality(10, 1, 0, 4000)),
    "uniform": evaluation(2, 1e-6, quality(20.7654321, 1.1, NEAR)),
    "ratio_25": evaluation(2.5, 2e-4, quality(19.5, 0.95, FAR), large=quality(10.5, 2, FAR, 4000)),
}


def allocation(policy: str, bits: float | None, predicted: float, tensors: bool = True) -> Allocation:
    """One tensor in `bits` bits, 1.5 above the bound; None: in a float format."""
    tensor = AllocatedTensor(
        format="int4" if bits else "float16",
        bits=bits or 16,
        layout=StoredLayout(shape=[4, 4, 3, 3]),
        rounding="nearest",
        score=0.5,
        threshold=None,
        squared_error=0.25,
    )
    return Allocation(
        policy=policy,
        options={},
        coding=None,
        recipe=Recipe(activations=None, reconstruct=None, correct=None, recover=None),
        tensors={"layers.1.block1.conv1.weight": tensor} if tensors else {},
        predicted_noise_mse={1: predicted, 100: 3 * predicted, 1000: 5 * predicted},
        bits_per_weight=BitsPerWeight(bits=bits, bound=bits - 1.5) if bits else None,
    )


ALLOCATIONS = {
    "fp32": allocation("fp32", None, 0, tensors=False),
    "uniform": allocation("bits", 4, 1e-6),
    "ratio_25": allocation("bits", 2.5, 3e-4),
}


def control(
    ratio: float,
    importance: str,
    measured: Quality | None,
    precision: str = "float32",
    of: str = "resident",
    coding: str | None = None,
) -> ControlRow:
    """Its file takes half as many bytes again as its tensors in memory."""
    taken = int(4 * 2**20 / ratio)
    sizes = {"resident": (taken, taken * 3 // 2), "file": (taken * 2 // 3, taken)}[of]
    found = measured and StoredQuality(**dict(measured), **dict(zip(("bytes", "file_bytes"), sizes, strict=True)))
    return ControlRow(ratio=ratio, of=of, coding=coding, importance=importance, precision=precision, found=found)


BASE, WORSE, BETTER = quality(20, 1, 0), quality(20.75, 1.1, NEAR), quality(19.5, 0.95, FAR)
CONTROLS = ControlTable(
    seeds=[0, 1],
    precision="float32",
    bases={"float32": BASE},
    rows=[
        control(8.0, "fisher", WORSE),
        control(8.0, "none", BETTER),
        control(8.0, "uniform", None),
        control(12.5, "fisher", BETTER),
        control(12.5, "none", BASE),
        control(12.5, "uniform", WORSE),
        control(64, "fisher", None),
        control(64, "none", WORSE),
    ],
)
BY_FILE = CONTROLS.model_copy(  # the same sizes of coded files too, where what fits is the other way round
    update={
        "rows": [
            control(8.0, "fisher", BETTER, of="file", coding="ans"),
            *CONTROLS.rows,
            control(8.0, "none", WORSE, of="file", coding="ans"),
            control(8.0, "uniform", BASE, of="file", coding="ans"),
            control(12.5, "fisher", None, of="file", coding="ans"),
            control(12.5, "none", BASE, of="file", coding="ans"),
        ]
    }
)
FLOOR = {"images": 1797, "fid": Interval(mean=1.5, low=1.25, high=1.75), "fid_again": None}
FLOOR["kid"] = Interval(mean=0.001, low=-0.001, high=0.003)
FLOORS = Floors(**FLOOR, headlines={"large": FLOOR | {"fid": Interval(mean=0.75, low=0.5, high=1.0)}})
LAYERS = {"layers.1.block1.conv1.weight": "1", "layers.1.resample.weight": "1", "layers.6.attention.qkv.weight": "6"}


def fisher_kind(scale: float) -> FisherKind:
    def means(factor: float) -> Means:
        return Means(mean=[factor * 100, factor * 10, factor], standard_error=[factor * 10, factor, factor * 2])

    return FisherKind(
        layers={"1": means(scale), "6": means(2 * scale)},
        tensors={name: means(scale * (place + 1)) for place, name in enumerate(LAYERS)},
    )


FISHER = FisherTable(
    images=4,
    timesteps=[1, 50, 1000],
    layers=LAYERS,
    magnitude={name: float(place + 1) for place, name in enumerate(LAYERS)},
    empirical=fisher_kind(1.0),
    gauss_newton=fisher_kind(5.0),
)
