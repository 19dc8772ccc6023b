import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn

from laqfi.quality.classifier import FEATURES, FeatureNet, accuracy, fit, shift
from laqfi.quality.params import Classifier

SETTINGS = Classifier(network="classifier", epochs=8, batch_size=20, lr=0.002, seeds=[0])
SHORT = SETTINGS.model_copy(update={"epochs": 1})


def easy_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """100 handwritten zeros, ones and fours."""
    images, labels = load_digits(return_X_y=True)
    chosen = np.isin(labels, (0, 1, 4)).nonzero()[0][:100]
    scaled = torch.from_numpy(images[chosen]).float().view(-1, 1, 8, 8) / 8 - 1
    return scaled, torch.from_numpy(np.searchsorted((0, 1, 4), labels[chosen]))


def trained(settings: Classifier, dropout: float = 0.3, seed: int = 0) -> FeatureNet:
    torch.manual_seed(0)
    network = FeatureNet(1, 8, 3)
    network.dropout.p = dropout
    fit(network, *easy_digits(), settings, seed)
    return network


def weights(network: FeatureNet) -> torch.Tensor:
    return torch.cat([tensor.double().flatten() for tensor in network.state_dict().values()])


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.integers(-4, 4), st.integers(-4, 4))
def test_shift_shows_the_pixel_so_many_rows_and_columns_on_and_background_beyond(rows, columns):
    x = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    moved = shift(x, rows, columns)
    expected = torch.full_like(x, -1.0)
    for i in range(4):
        for j in range(5):
            if 0 <= i + rows < 4 and 0 <= j + columns < 5:
                expected[..., i, j] = x[..., i + rows, j + columns]
    assert torch.equal(moved, expected)


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 8), (1, 32), (3, 16)])
def test_every_image_has_84_features_and_a_score_per_class(channels, side):
    network = FeatureNet(channels, side, 7).eval()
    x = torch.rand(5, channels, side, side) * 2 - 1
    features = network.features(x)
    assert features.shape == (5, FEATURES) == (5, 84)
    assert features.min() == 0 < features.max()
    assert network(x).shape == (5, 7)


def test_dropout_acts_in_training_only():
    network, (images, _) = FeatureNet(1, 8, 3), easy_digits()
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


def test_features_of_an_image_do_not_depend_on_its_batch():
    network, (images, _) = trained(SHORT), easy_digits()
    with torch.inference_mode():
        alone = torch.cat([network.features(image[None]) for image in images[:5]])
        torch.testing.assert_close(network.features(images)[:5], alone, rtol=1e-4, atol=1e-5)


def test_fit_learns_easy_digits():
    network = trained(SETTINGS)
    assert not network.training
    assert accuracy(network, *easy_digits()) > 0.97


def test_labels_decide_what_is_learnt():
    torch.manual_seed(0)
    network, (images, labels) = FeatureNet(1, 8, 3), easy_digits()
    fit(network, images, (labels + 1) % 3, SETTINGS, 0)
    assert accuracy(network, images, labels) < 0.1


def test_fit_leaves_the_images_as_they_were():
    images, labels = easy_digits()
    before = images.clone()
    fit(FeatureNet(1, 8, 3), images, labels, SHORT, 0)
    assert torch.equal(images, before)


def test_same_seed_gives_the_same_weights_bit_for_bit():
    assert torch.equal(weights(trained(SHORT)), weights(trained(SHORT)))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_other_seed_gives_other_weights(dropout):
    assert not torch.allclose(weights(trained(SHORT, dropout, seed=1)), weights(trained(SHORT, dropout)))


def test_fit_sees_every_image_once_per_epoch_moved_by_at_most_an_eighth():
    seen = []
    network, labels = FeatureNet(1, 16, 3), torch.zeros(60, dtype=torch.long)
    dots = torch.full((60, 1, 16, 16), -1.0)
    dots[torch.arange(60), 0, 8, 8] = torch.arange(60) / 60
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    fit(network, dots, labels, SETTINGS, 0)
    images, _, rows, columns = (torch.cat(seen) > -1).nonzero(as_tuple=True)
    assert len(images) == 8 * 60
    for epoch in torch.cat(seen)[images, 0, rows, columns].view(8, 60):
        assert torch.equal(epoch.sort().values, torch.arange(60) / 60)
    assert set(rows.tolist()) == set(columns.tolist()) == {6, 7, 8, 9, 10}


def test_fit_does_not_depend_on_random_numbers_drawn_before():
    torch.manual_seed(0)
    network = FeatureNet(1, 8, 3)
    torch.rand(7)
    np.random.default_rng().random()
    fit(network, *easy_digits(), SHORT, 0)
    assert torch.equal(weights(network), weights(trained(SHORT)))


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_accuracy_is_the_share_of_right_answers_at_every_batch_size(batch_size):
    identity = nn.Linear(3, 3, bias=False)
    nn.init.eye_(identity.weight)
    scores = torch.eye(3)[[0, 1, 2, 2, 1]]
    assert accuracy(identity, scores, torch.tensor([0, 1, 2, 0, 0]), batch_size) == pytest.approx(0.6)


def test_the_learning_rate_falls_to_zero_with_the_last_batch(monkeypatch):
    made = []

    class Watched(torch.optim.lr_scheduler.CosineAnnealingLR):
        def __init__(self, *arguments):
            made.append(self)
            super().__init__(*arguments)

    monkeypatch.setattr(torch.optim.lr_scheduler, "CosineAnnealingLR", Watched)
    settings = Classifier(network="classifier", epochs=3, batch_size=4, lr=0.01, seeds=[0])
    fit(FeatureNet(1, 8, 2), torch.rand(10, 1, 8, 8) * 2 - 1, torch.arange(10) % 2, settings, 0)
    assert made[0].last_epoch == made[0].T_max == 3 * 3
    assert made[0].get_last_lr()[0] == pytest.approx(0, abs=1e-12)
