import hashlib
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from pytorch_fid.inception import fid_inception_v3

from laqfi import records
from laqfi.base import files
from laqfi.base.errors import LaqfiError
from laqfi.base.pictures import from_uint8
from laqfi.quality import features
from laqfi.quality.classifier import FeatureNet
from laqfi.quality.judge import Judge
from laqfi.quality.kernel import KernelReference, jackknife_kid, mean_within
from laqfi.quality.params import Inception
from laqfi.stages.features import feature_network
from laqfi.stages.reference import reference

CPU = torch.device("cpu")


def first(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As a features file names the tensors of its first network."""
    return {f"0.{name}": tensor for name, tensor in state.items()}


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """A weight file of the published layout with random weights, and its SHA-256."""
    torch.manual_seed(0)
    empty = {}
    with (
        mock.patch("pytorch_fid.inception.load_state_dict_from_url", return_value=empty),
        mock.patch.object(torch.nn.Module, "load_state_dict"),
    ):
        network = fid_inception_v3()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):  # so that something is left of an image behind forty of them
            torch.nn.init.kaiming_normal_(module.weight)
    path = tmp_path_factory.mktemp("weights") / "pt_inception.pth"
    torch.save(network.state_dict(), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    return random.integers(0, 256, (8, 1, 8, 8)).astype(np.uint8)


def with_inception(profile, sha256):
    changes = {
        "features": Inception(network="inception", sha256=sha256),
        "sample": profile.sample.model_copy(update={"images": 4}),
        "evaluate": profile.evaluate.model_copy(update={"groups": 2}),
    }
    return profile.model_copy(update=changes)


def test_inception_features_end_to_end(tmp_path, monkeypatch, profile, inception_file, images):
    weights, sha256 = inception_file
    monkeypatch.setenv(features.WEIGHTS, str(weights))
    profile = with_inception(profile, sha256)
    paths = SimpleNamespace(**{name: tmp_path / name for name in ("dataset", "network", "info", "reference", "floor")})
    labels = np.zeros(4, dtype=np.int64)
    files.write_arrays(
        paths.dataset, train_images=images[:4], test_images=images[4:], train_labels=labels, test_labels=labels
    )
    feature_network(profile.dataset, profile.features, images=paths.dataset, network=paths.network, info=paths.info)
    info = records.read(paths.info, records.FeatureNetwork)
    assert (info.network, info.accuracy, info.sha256) == ("inception", [], files.sha256(paths.network))

    (extract,) = features.load(paths.network, CPU)
    found = extract(images[:3])
    assert (found.shape, found.dtype) == ((3, 2048), np.float64)
    assert found.std(0).mean() > 0.01 * found.mean(), "images are told apart"
    np.testing.assert_allclose(extract(images[1:2]), found[1:2], rtol=1e-3, atol=1e-3 * found.mean())

    reference(
        profile.sample,
        profile.evaluate,
        dataset=paths.dataset,
        network=paths.network,
        out=paths.reference,
        floor=paths.floor,
    )
    assert files.read_array(paths.reference, "covariance").shape == (2048, 2048)
    judge = Judge(paths.network, paths.reference, profile.evaluate.groups)
    found = judge.quality(images[None, 4:], images[None, 4:])
    assert (found.images, found.fid_again, found.squared_error) == (4, None, [[0] * 4])
    assert found.fid.mean > 1e-3 * np.trace(files.read_array(paths.reference, "covariance"))
    real = extract(images[:4]).astype(np.float32).astype(np.float64)
    expected = jackknife_kid(extract(images[4:]), KernelReference(real, mean_within(real)), 2)
    assert found.kid.mean == pytest.approx(expected.value, abs=1e-12)


def test_inception_sees_the_same_as_pytorch_fid(monkeypatch, tmp_path, inception_file, images):
    weights, sha256 = inception_file
    monkeypatch.setenv(features.WEIGHTS, str(weights))
    state = features.fetch_inception(sha256, tmp_path)
    path = tmp_path / "features.safetensors"
    files.write_tensors(path, first(state), {"network": "inception"})
    network = features.inception_network(torch.load(weights, weights_only=True))
    rgb = torch.from_numpy(images[:2]).expand(-1, 3, -1, -1).float() / 255
    with torch.no_grad():
        expected = network(rgb)[0].flatten(1).numpy()
    found = features.load(path, CPU)[0](images[:2])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * expected.mean())


def test_inception_sees_colours_as_they_are(monkeypatch, tmp_path, inception_file):
    weights, sha256 = inception_file
    monkeypatch.setenv(features.WEIGHTS, str(weights))
    path = tmp_path / "features.safetensors"
    files.write_tensors(path, first(features.fetch_inception(sha256, tmp_path)), {"network": "inception"})
    images = np.random.default_rng(1).integers(0, 256, (2, 3, 16, 16)).astype(np.uint8)
    with torch.no_grad():
        seen = features.inception_network(torch.load(weights, weights_only=True))(torch.from_numpy(images) / 255)
    expected = seen[0].flatten(1).numpy()
    np.testing.assert_allclose(features.load(path, CPU)[0](images), expected, rtol=1e-3, atol=1e-3 * expected.mean())


def test_weights_with_another_hash_are_refused_unread(monkeypatch, tmp_path, inception_file):
    monkeypatch.setenv(features.WEIGHTS, str(inception_file[0]))
    monkeypatch.setattr(torch, "load", mock.Mock(side_effect=AssertionError("read before it was checked")))
    with pytest.raises(LaqfiError, match=r"SHA-256 is .*, allowed is features\.sha256 = 00000"):
        features.fetch_inception("0" * 64, tmp_path)


@pytest.mark.parametrize("payload", [b"", b"not a checkpoint"])
def test_a_file_that_is_no_weight_file_is_refused(monkeypatch, tmp_path, payload):
    path = tmp_path / "weights.pth"
    path.write_bytes(payload)
    monkeypatch.setenv(features.WEIGHTS, str(path))
    with pytest.raises(LaqfiError, match=r"weights\.pth: not the weights of pytorch-fid's Inception") as error:
        features.fetch_inception(hashlib.sha256(payload).hexdigest(), tmp_path)
    assert "\n" not in str(error.value)


def test_weights_of_another_network_are_refused(monkeypatch, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.zeros(3)}, path)
    monkeypatch.setenv(features.WEIGHTS, str(path))
    with pytest.raises(LaqfiError, match="not the weights of pytorch-fid's Inception"):
        features.fetch_inception(files.sha256(path), tmp_path)


def test_a_missing_weight_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv(features.WEIGHTS, str(tmp_path / "gone.pth"))
    with pytest.raises(LaqfiError, match=r"gone\.pth: cannot be read"):
        features.fetch_inception("0" * 64, tmp_path)


def test_without_network_the_error_names_the_variable(monkeypatch, tmp_path):
    monkeypatch.delenv(features.WEIGHTS, raising=False)
    monkeypatch.setattr("pytorch_fid.inception.FID_WEIGHTS_URL", "http://127.0.0.1:9/weights.pth")
    with pytest.raises(LaqfiError, match=r"could not be downloaded .*set LAQFI_INCEPTION_WEIGHTS"):
        features.fetch_inception("0" * 64, tmp_path)


def test_a_file_of_an_unknown_network_is_refused(tmp_path):
    path = tmp_path / "features.safetensors"
    files.write_tensors(path, {"0.w": torch.zeros(1)}, {"network": "vgg"})
    with pytest.raises(LaqfiError, match="network is 'vgg', allowed is classifier, inception or efficientnet_lite0"):
        features.load(path, CPU)


def test_images_of_another_size_than_the_network_is_for_are_refused(tmp_path):
    path = tmp_path / "features.safetensors"
    metadata = {"network": "classifier", "image": [1, 8], "classes": 2}
    files.write_tensors(path, first(FeatureNet(1, 8, 2).state_dict()), metadata)
    (extract,) = features.load(path, CPU)
    assert extract(np.zeros((2, 1, 8, 8), np.uint8)).shape == (2, 84)
    with pytest.raises(LaqfiError, match=r"is for images \(1, 8, 8\), found \(1, 16, 16\)"):
        extract(np.zeros((2, 1, 16, 16), np.uint8))


def test_a_features_file_of_other_inception_weights_is_refused_in_one_line(tmp_path):
    path = tmp_path / "features.safetensors"
    files.write_tensors(path, {"0.weight": torch.zeros(3)}, {"network": "inception"})
    with pytest.raises(LaqfiError, match="not the weights of pytorch-fid's Inception") as error:
        features.load(path, CPU)
    assert "\n" not in str(error.value)


def test_networks_of_one_file_come_in_order_and_each_sees_for_itself(tmp_path):
    path, images = tmp_path / "features.safetensors", np.arange(128, dtype=np.uint8).reshape(2, 1, 8, 8)
    networks = []
    for seed in range(2):
        torch.manual_seed(seed)
        networks.append(FeatureNet(1, 8, 2).eval())
    named = {f"{place}.{name}": t for place, one in enumerate(networks) for name, t in one.state_dict().items()}
    files.write_tensors(path, named, {"network": "classifier", "image": [1, 8], "classes": 2})
    for extract, network in zip(features.load(path, CPU), networks, strict=True):
        expected = network.features(from_uint8(images)).detach().double().numpy()
        np.testing.assert_allclose(extract(images), expected, rtol=1e-6)


@pytest.mark.parametrize("names", [["w"], ["1.w"], ["0.w", "2.w"], []])
def test_a_features_file_without_its_first_network_or_with_a_gap_is_refused(tmp_path, names):
    path = tmp_path / "features.safetensors"
    files.write_tensors(path, {name: torch.zeros(1) for name in names}, {"network": "classifier"})
    with pytest.raises(LaqfiError, match=r"features\.safetensors: holds the networks .*, allowed are 0, 1"):
        features.load(path, CPU)
