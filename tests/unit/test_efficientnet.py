"""Features of EfficientNet-Lite0: those of the package's own network on the package's own weights."""

import importlib.util
from unittest import mock

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from sklearn.datasets import load_sample_images

from laqfi import records
from laqfi.base import files
from laqfi.base.errors import LaqfiError
from laqfi.data.folder import pixels
from laqfi.quality import efficientnet, features
from laqfi.quality.params import EfficientNet as Settings
from laqfi.stages.features import feature_network

CPU = torch.device("cpu")
PALACE, DAISY = 698, 985  # ImageNet's numbers of what scikit-learn's two photographs show


@pytest.fixture(scope="module")
def photographs():
    """uint8 [2, 3, 224, 224]."""
    return np.stack([pixels(Image.fromarray(image), 224, 3) for image in load_sample_images().images])


@pytest.fixture(scope="module")
def written(tmp_path_factory, photographs):
    """What the stage writes for images without labels."""
    folder = tmp_path_factory.mktemp("features")
    files.write_arrays(folder / "dataset.npz", train_images=photographs, test_images=photographs)
    paths = {"images": folder / "dataset.npz", "network": folder / "x.safetensors", "info": folder / "x.json"}
    data = mock.Mock()
    data.name = "folder"
    feature_network(data, Settings(network="efficientnet_lite0"), **paths)
    return folder


def test_what_is_seen_in_photographs_is_what_they_show(written, photographs):
    (extract,) = features.load(written / "x.safetensors", CPU)
    found = extract(photographs)
    assert (found.shape, found.dtype) == ((2, efficientnet.FEATURES), np.float64)
    path = importlib.util.find_spec(efficientnet.PACKAGE).submodule_search_locations[0] + "/" + efficientnet.FILE
    state = torch.load(path, weights_only=True)
    whole = EfficientNet.from_name("efficientnet-lite0").eval()
    whole.load_state_dict(state)
    with torch.no_grad():
        classes = whole((torch.from_numpy(photographs).float() - 127) / 128)
    assert classes.argmax(1).tolist() == [PALACE, DAISY]
    ours = found @ state["_fc.weight"].double().numpy().T + state["_fc.bias"].double().numpy()
    np.testing.assert_allclose(ours, classes.double().numpy(), atol=1e-3)
    info = records.read(written / "x.json", records.FeatureNetwork)
    assert (info.network, info.accuracy, info.images.train) == ("efficientnet_lite0", [], 2)


def test_the_colours_count_and_grey_is_three_equal_channels(written, photographs):
    (extract,) = features.load(written / "x.safetensors", CPU)
    grey = photographs[:1, :1, ::7, ::7]
    plain, tripled, swapped = (extract(one) for one in (grey, grey.repeat(3, 1), photographs[:1, ::-1]))
    np.testing.assert_allclose(plain, tripled, atol=1e-6)
    assert np.abs(swapped - extract(photographs[:1])).max() > 0.1


def test_a_weight_file_of_another_hash_is_refused_unread(monkeypatch):
    monkeypatch.setattr(efficientnet, "SHA256", "0" * 64)
    monkeypatch.setattr(torch, "load", mock.Mock(side_effect=AssertionError("read before it was checked")))
    with pytest.raises(LaqfiError, match=r"efficientnet-lite0-57934424\.pth: SHA-256 is 579344248a.*, allowed is 000"):
        efficientnet.fetch()


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setattr(efficientnet, "PACKAGE", "not_there")
    with pytest.raises(LaqfiError, match="efficientnet_lite0 needs the package not-there"):
        efficientnet.fetch()


def test_a_features_file_of_another_network_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    files.write_tensors(path, {"0.weight": torch.zeros(3)}, {"network": "efficientnet_lite0"})
    with pytest.raises(LaqfiError, match=r"x\.safetensors: "):
        features.load(path, CPU)
