"""Training on a GPU: killed, repeated, and without waiting for what it computes."""

import pytest
import torch
from killed import dying_clock, unequal
from sklearn.datasets import load_digits

from laqfi.base.random import generator
from laqfi.diffusion.params import Train
from laqfi.diffusion.training import Trainer, batch_indices, train
from laqfi.models.unet import UNet, Unet
from laqfi.quality.params import Classifier
from laqfi.stages.features import trained_classifier

SETTINGS = Train(steps=120, batch_size=32, lr=0.002, warmup=10, beta2=0.999, ema=0.9, grad_clip=1.0, seed=0)
DIGITS = torch.tensor(load_digits().images[:1000, None] / 8 - 1, dtype=torch.float32)


def trainer(alphas_cumprod) -> Trainer:
    torch.manual_seed(0)
    config = Unet(family="unet", base_channels=32, attention=[2, 6], heads=2, dropout=0.1)
    return Trainer(UNet(config, image_channels=1).to("cuda"), alphas_cumprod, SETTINGS)


def trained(alphas_cumprod, folder, **options) -> Trainer:
    run = trainer(alphas_cumprod)
    train(run, DIGITS, folder / "state.safetensors", **({"save_every": 1e9} | options))
    return run


def test_two_trainings_give_the_same_bytes(tmp_path, alphas_cumprod):
    assert unequal(trained(alphas_cumprod, tmp_path), trained(alphas_cumprod, tmp_path)) == []


def test_a_killed_training_goes_on_to_the_same_bytes(tmp_path, alphas_cumprod):
    straight = trained(alphas_cumprod, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        trained(alphas_cumprod, tmp_path, save_every=0, clock=dying_clock())
    assert (tmp_path / "state.safetensors").exists()
    assert unequal(straight, trained(alphas_cumprod, tmp_path)) == []


def test_a_step_in_a_graph_is_the_step_without(alphas_cumprod):
    captured, plain = trainer(alphas_cumprod), trainer(alphas_cumprod)
    plain.gradients = plain.loss_and_gradients
    images = DIGITS.to("cuda")
    for run in (captured, plain):
        for step in range(10):
            run.advance(images[batch_indices(step, len(images), SETTINGS, run.device)])
    assert unequal(captured, plain) == []
    assert captured.losses[:10].unique().numel() == 10, "every step has noise of its own"


def test_a_step_reads_nothing_back(alphas_cumprod):
    run, images = trainer(alphas_cumprod), DIGITS.to("cuda")
    run.advance(images[batch_indices(0, len(images), SETTINGS, run.device)])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 4):
            run.advance(images[batch_indices(step, len(images), SETTINGS, run.device)])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert run.step == 4


def test_the_classifier_is_trained_on_the_cpu():
    random = generator("gpu test")
    arrays = {f"{part}_images": random.integers(0, 256, (20, 1, 8, 8), dtype="uint8") for part in ("train", "test")}
    arrays |= {f"{part}_labels": random.integers(0, 3, 20) for part in ("train", "test")}
    settings = Classifier(network="classifier", epochs=1, batch_size=10, lr=0.002, seeds=[0])
    network, _ = trained_classifier(settings, 0, arrays)
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"cpu"}
