"""The page of the small run, with three more variants in float formats that say the same as FP32."""

from functools import cache

import numpy as np

from laqfi.quant.params import Quantize
from laqfi.records import FeatureNetwork, ImageCounts
from laqfi.sampling.params import Described
from laqfi.stages.report import Run, figures_of, page_of, tables_of
from small_run import ALLOCATIONS, CONTROLS, EVALUATIONS, FISHER, FLOORS, allocation, evaluation, quality

ALIKE = {"threshold": 2.125, "mean_std": 2.25, "group_12_3456": 2.5}  # by variant, MiB
NETWORK = FeatureNetwork(
    dataset="digits",
    network="classifier",
    images=ImageCounts(train=1437, test=360),
    accuracy=[0.98765, 0.97],
    sha256="0123456789abcdef" * 4,
)
RUN = Run(
    evaluations=EVALUATIONS
    | {name: evaluation(mib, 1e-8, quality(20 + mib / 1000, 1, 1)) for name, mib in ALIKE.items()},
    allocations=ALLOCATIONS | {name: allocation(name.partition("_12")[0], None, 1e-8) for name in ALIKE},
    floors=FLOORS,
    fisher=FISHER,
    controls=CONTROLS,
    network=NETWORK,
)
SAMPLE = Described(sampler="ddim", steps=20, eta=0.0, seeds=[0, 1], images=40)
QUANTIZE = Quantize(fisher="gauss_newton", timestep=1)
LOSS = "step,loss\n1,1.0\n50,0.1\n"


def images() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8) for name in ("real", *RUN.evaluations)}


@cache
def page() -> str:
    return page_of(RUN, "tiny", SAMPLE, tables_of(RUN), figures_of(RUN, QUANTIZE, LOSS, images()))
