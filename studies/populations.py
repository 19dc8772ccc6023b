"""Where features are drawn from in the study: populations whose Fréchet distance to the reference is known exactly."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from laqfi.base.pictures import from_uint8
from laqfi.base.random import generator
from laqfi.data.datasets import load
from laqfi.quality.classifier import FEATURES, FeatureNet
from laqfi.quality.kernel import KernelReference, mean_within
from laqfi.quality.params import Classifier
from laqfi.quality.statistics import Reference, mean_and_covariance
from laqfi.stages.features import trained_classifier

BASE = "base"
VARIANCE = 137.0  # the trace of the covariance of the digits' features
REAL = 1437  # features of real images that KID compares with, as many as there are training digits
# As in the profile `quick`.
CLASSIFIER = Classifier(network="classifier", epochs=25, batch_size=64, lr=0.002, seeds=[0])
GREY = 20.0  # standard deviation of the noise in the pixels (0 to 255) of the digits that stand for drawn ones


@dataclass(frozen=True)
class Population:
    """What features are drawn from: those of a base and of its changed versions, sample by sample on the same noise.

    draw(random, n): float64 [members, n, D]; the first of `members` is the base. `fids`: of each member, at infinitely
    many images.
    """

    name: str
    reference: Reference
    kernel: KernelReference
    members: tuple[str, ...]
    fids: tuple[float, ...]
    draw: Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Change:
    """Of every sample's noise, the part (a sine) that is drawn anew, and by what factor it is scaled and moved.

    With `moved` at zero only the samples differ, not their distribution: the true difference is zero.
    """

    anew: float
    moved: float


def kernel_reference(real: np.ndarray) -> KernelReference:
    return KernelReference(real, mean_within(real))


def decaying() -> np.ndarray:
    """Variances [D] that fall as a power of their place, as those of a trained network's features about do."""
    values = np.arange(1, FEATURES + 1) ** -1.5
    return VARIANCE * values / values.sum()


def gaussian(name: str, variances: np.ndarray, apart: float, changes: Mapping[str, Change]) -> Population:
    """Normal features whose mean and covariance are `apart` from the reference's; with 0 they are equal."""
    size, deviations = len(variances), np.sqrt(variances)
    reference = Reference.of(np.zeros(size), np.diag(variances))
    mixing = generator("coverage", "mixing", size).standard_normal((size, size)) / np.sqrt(size)
    root = deviations[:, None] * (np.eye(size) + apart * mixing)
    mean = apart / 3 * deviations
    all_changes = [Change(0, 0), *changes.values()]

    def draw(random: np.random.Generator, n: int) -> np.ndarray:
        noise = random.standard_normal((n, size)) @ root.T
        found = np.empty((len(all_changes), n, size))
        for place, change in enumerate(all_changes):
            fresh = random.standard_normal((n, size)) @ root.T if change.anew else 0
            kept = np.sqrt(1 - change.anew**2) * noise + change.anew * fresh
            found[place] = mean + change.moved * deviations + (1 + change.moved) * kept
        return found

    fids = tuple(
        reference.frechet_distance(mean + change.moved * deviations, (1 + change.moved) ** 2 * root @ root.T)
        for change in all_changes
    )
    real = generator("coverage", "real", size).standard_normal((REAL, size)) * deviations
    return Population(name, reference, kernel_reference(real), (BASE, *changes), fids, draw)


def resampled(name: str, real: np.ndarray, base: np.ndarray, changed: Mapping[str, np.ndarray]) -> Population:
    """Features [M, D] drawn with replacement, row i of all members together: the rows are the whole population."""
    rows = np.stack([base, *changed.values()])
    reference = Reference.of(*mean_and_covariance(real))

    def draw(random: np.random.Generator, n: int) -> np.ndarray:
        return rows[:, random.integers(0, rows.shape[1], n)]

    fids = tuple(reference.frechet_distance(one.mean(axis=0), np.cov(one, rowvar=False, bias=True)) for one in rows)
    return Population(name, reference, kernel_reference(real), (BASE, *changed), fids, draw)


@torch.inference_mode()
def features(network: FeatureNet, images: np.ndarray) -> np.ndarray:
    return network.features(from_uint8(images)).double().numpy()


def noisy(images: np.ndarray, deviation: float, name: str) -> np.ndarray:
    """Grey noise on uint8 images, another one for each name."""
    noise = deviation * generator("coverage", "pixels", name).standard_normal(images.shape)
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def digits() -> list[Population]:
    """Features of the handwritten digits by the classifier of the profile `quick`: as they are, and with grey noise.

    Noisy digits stand for drawn ones. All 1,797 are the population, the training digits are the reference. "none" pairs
    a digit with itself under another noise of the same size, both ways round, which leaves the distribution the same.
    """
    arrays = load("digits", {})
    network, _ = trained_classifier(CLASSIFIER, 0, arrays)
    real = features(network, arrays["train_images"])
    images = np.concatenate([arrays["train_images"], arrays["test_images"]])
    first, second = noisy(images, GREY, "first"), noisy(images, GREY, "second")
    one, other = features(network, first), features(network, second)
    changed = {"none": np.concatenate([other, one])}
    for name, deviation in {"small": 5.0, "large": GREY}.items():
        parts = [features(network, noisy(part, deviation, f"{name} {k}")) for k, part in enumerate((first, second))]
        changed[name] = np.concatenate(parts)
    return [
        resampled("digits", real, features(network, images), {}),
        resampled("noisy digits", real, np.concatenate([one, other]), changed),
    ]


def gaussians() -> list[Population]:
    """Equal to the reference with equal variances (the hardest to extrapolate) and falling ones, and apart from it."""
    changes = {"none": Change(0.3, 0), "small": Change(0.1, 0.01), "large": Change(0.5, 0.1)}
    return [
        gaussian("Gaussian, equal, flat", np.full(FEATURES, VARIANCE / FEATURES), 0, {}),
        gaussian("Gaussian, equal", decaying(), 0, {}),
        gaussian("Gaussian, apart", decaying(), 0.3, changes),
    ]
