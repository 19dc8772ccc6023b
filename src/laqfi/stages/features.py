"""Stage: the feature network, trained once (or fetched), frozen, and hashed."""

import tempfile
from pathlib import Path

import torch

from laqfi import records
from laqfi.base import files
from laqfi.base.device import default_device
from laqfi.base.errors import LaqfiError
from laqfi.base.pictures import from_uint8
from laqfi.base.random import derive_seed
from laqfi.data.params import Dataset
from laqfi.quality import features as networks
from laqfi.quality.classifier import FeatureNet, accuracy, fit
from laqfi.quality.params import Classifier, Features
from laqfi.stages import command

CLASSES = 1000  # more than any data set here: a wrong label must not ask for a huge layer


def feature_network(dataset: Dataset, features: Features, *, images: Path, network: Path, info: Path) -> None:
    """Write the network as safetensors, and its held-out accuracy and SHA-256 as JSON."""
    arrays = files.read_arrays(images, "train_images", "train_labels", "test_images", "test_labels")
    for part in ("train", "test"):
        labels = arrays[f"{part}_labels"]
        if labels.min() < 0 or labels.max() >= CLASSES:
            found = f"{labels.min()} to {labels.max()}"
            raise LaqfiError(f"{images}: {part}_labels holds {found}, allowed is 0 to {CLASSES - 1}")
    if isinstance(features, Classifier):
        state, metadata, held_out = trained_classifier(features, arrays)
    else:
        with tempfile.TemporaryDirectory() as folder:
            state = networks.fetch_inception(features.sha256, Path(folder))
        metadata, held_out = {"network": "inception"}, None
    files.write_tensors(network, state, metadata)
    written = records.FeatureNetwork(
        dataset=dataset.name,
        network=features.network,
        images=records.ImageCounts(train=len(arrays["train_images"]), test=len(arrays["test_images"])),
        accuracy=held_out,
        sha256=files.sha256(network),
    )
    records.write(info, written)


def trained_classifier(settings: Classifier, arrays: dict) -> tuple[dict, dict, float]:
    """State, metadata and held-out accuracy of a classifier trained on the training images."""
    images, test_images = (from_uint8(arrays[f"{part}_images"]) for part in ("train", "test"))
    labels, test_labels = (torch.from_numpy(arrays[f"{part}_labels"]) for part in ("train", "test"))
    classes = int(labels.max()) + 1
    image = [images.shape[1], images.shape[-1]]
    torch.manual_seed(derive_seed("classifier weights", settings.seed))
    network = FeatureNet(*image, classes).to(default_device())
    fit(network, images, labels, settings)
    metadata = {"network": "classifier", "image": image, "classes": classes}
    return network.state_dict(), metadata, accuracy(network, test_images, test_labels)


if __name__ == "__main__":
    command.run(feature_network)
