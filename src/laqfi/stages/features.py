"""Stage: the feature networks, trained once (or fetched), frozen, and hashed."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from laqfi import records
from laqfi.base import files
from laqfi.base.errors import LaqfiError
from laqfi.base.pictures import from_uint8
from laqfi.base.random import derive_seed
from laqfi.data.params import Dataset
from laqfi.quality import efficientnet
from laqfi.quality import features as networks
from laqfi.quality.classifier import CLASSES, FeatureNet, accuracy, fit
from laqfi.quality.params import Classifier, Features, Inception
from laqfi.stages import command


def feature_network(dataset: Dataset, features: Features, *, images: Path, network: Path, info: Path) -> None:
    """Write the networks as safetensors, and their held-out accuracy and SHA-256 as JSON.

    The names of the first network's tensors begin with `0.`, those of a second one with `1.`.
    """
    arrays = files.read_arrays(images, "train_images", "test_images")
    if isinstance(features, Classifier):
        arrays |= labels_of(images)
        trained = [trained_classifier(features, seed, arrays) for seed in features.seeds]
        states, accuracies = [one.state_dict() for one, _ in trained], [right for _, right in trained]
        metadata = {"network": "classifier", "image": trained[0][0].image, "classes": trained[0][0].classes}
    elif isinstance(features, Inception):
        with tempfile.TemporaryDirectory() as folder:
            states = [networks.fetch_inception(features.sha256, Path(folder))]
        metadata, accuracies = {"network": "inception"}, []
    else:
        states, metadata, accuracies = [efficientnet.fetch()], {"network": "efficientnet_lite0"}, []
    named = {f"{place}.{name}": tensor for place, state in enumerate(states) for name, tensor in state.items()}
    files.write_tensors(network, named, metadata)
    written = records.FeatureNetwork(
        dataset=dataset.name,
        network=features.network,
        images=records.ImageCounts(train=len(arrays["train_images"]), test=len(arrays["test_images"])),
        accuracy=accuracies,
        sha256=files.sha256(network),
    )
    records.write(info, written)


def labels_of(images: Path) -> dict[str, np.ndarray]:
    """The labels of a data set. Raises LaqfiError for what no classifier may be trained on."""
    arrays = files.read_arrays(images, "train_labels", "test_labels")
    for name, labels in arrays.items():
        if labels.min() < 0 or labels.max() >= CLASSES:
            found = f"{labels.min()} to {labels.max()}"
            raise LaqfiError(f"{images}: {name} holds {found}, allowed is 0 to {CLASSES - 1}")
    return arrays


def trained_classifier(settings: Classifier, seed: int, arrays: dict) -> tuple[FeatureNet, float]:
    """A classifier trained on the training images, and its held-out accuracy.

    On the CPU, on every machine: its bytes, and so what an FID means, are the same everywhere.
    """
    images, test_images = (from_uint8(arrays[f"{part}_images"]) for part in ("train", "test"))
    labels, test_labels = (torch.from_numpy(arrays[f"{part}_labels"]) for part in ("train", "test"))
    torch.manual_seed(derive_seed("classifier weights", seed))
    network = FeatureNet(images.shape[1], images.shape[-1], int(labels.max()) + 1)
    fit(network, images, labels, settings, seed)
    return network, accuracy(network, test_images, test_labels)


if __name__ == "__main__":
    command.run(feature_network)
