import signal

import pytest
import torch
from sklearn.datasets import load_digits

from laqfi.base.errors import LaqfiError
from laqfi.diffusion.params import Train
from laqfi.diffusion.training import Trainer, batch_indices, learning_rate, train
from laqfi.models.unet import UNet, Unet

SETTINGS = Train(steps=80, batch_size=4, lr=0.01, warmup=10, ema=0.9, grad_clip=1.0, seed=0)
DIGITS = torch.tensor(load_digits().images[:50, None] / 8 - 1, dtype=torch.float32)


class KilledError(Exception):
    pass


def trainer(alphas_cumprod, settings=SETTINGS):
    torch.manual_seed(0)
    config = Unet(family="unet", base_channels=4, attention=[2, 6], heads=2, dropout=0.1)
    return Trainer(UNet(config, image_channels=1), alphas_cumprod, settings)


def clock(kill_at=None):
    """A clock that moves a second each time it is read, and kills at a given reading: the start, then every save."""
    readings = iter(range(10_000))

    def read():
        now = next(readings)
        if now == kill_at:
            raise KilledError
        return now

    return read


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, alphas_cumprod):
    straight = trainer(alphas_cumprod)
    train(straight, DIGITS, tmp_path / "never", save_every=1e9)
    assert not (tmp_path / "never").exists()

    state = tmp_path / "state.safetensors"
    with pytest.raises(KilledError):
        train(trainer(alphas_cumprod), DIGITS, state, save_every=0, clock=clock(kill_at=2))
    resumed = trainer(alphas_cumprod)
    train(resumed, DIGITS, state, save_every=1e9)

    for name, tensor in straight.state().items():
        assert torch.equal(resumed.state()[name], tensor), name


def test_sigterm_writes_the_state_and_stops_and_the_run_resumes_to_the_same_bytes(tmp_path, alphas_cumprod):
    straight = trainer(alphas_cumprod)
    train(straight, DIGITS, tmp_path / "never", save_every=1e9)

    state = tmp_path / "state.safetensors"
    stopped = trainer(alphas_cumprod)
    advance = stopped.advance

    def advance_and_terminate(batch, denoiser):
        advance(batch, denoiser)
        if stopped.step == 7:
            signal.raise_signal(signal.SIGTERM)

    stopped.advance = advance_and_terminate
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(LaqfiError, match="SIGTERM after step 7; run again"):
        train(stopped, DIGITS, state, save_every=1e9)
    assert signal.getsignal(signal.SIGTERM) is before

    resumed = trainer(alphas_cumprod)
    train(resumed, DIGITS, state, save_every=1e9)
    for name, tensor in straight.state().items():
        assert torch.equal(resumed.state()[name], tensor), name


def test_the_state_on_disk_is_really_taken_up(tmp_path, alphas_cumprod):
    state = tmp_path / "state.safetensors"
    with pytest.raises(KilledError):
        train(trainer(alphas_cumprod), DIGITS, state, save_every=0, clock=clock(kill_at=2))
    resumed = trainer(alphas_cumprod)
    taken = []
    resumed.advance = lambda batch, denoiser: (taken.append(resumed.step), Trainer.advance(resumed, batch, denoiser))
    train(resumed, DIGITS, state, save_every=1e9)
    assert taken[0] == 50


def test_training_lowers_the_loss_and_the_ema_follows_the_weights(tmp_path, alphas_cumprod):
    run = trainer(alphas_cumprod)
    start = {name: p.detach().clone() for name, p in run.parameters.items()}
    train(run, DIGITS, tmp_path / "state")
    assert run.losses[-20:].mean() < 0.8 * run.losses[:5].mean()
    for name, parameter in run.parameters.items():
        moved = (parameter - start[name]).norm()
        assert (run.ema[name] - parameter).norm() < moved or moved == 0


def test_a_loss_that_is_not_a_number_stops_with_an_error_and_no_state(tmp_path, alphas_cumprod):
    broken = DIGITS.clone()
    broken[:] = float("nan")
    with pytest.raises(LaqfiError, match="the loss is nan at step 50"):
        train(trainer(alphas_cumprod), broken, tmp_path / "state", save_every=0)
    assert not (tmp_path / "state").exists()


def test_a_short_run_is_checked_too(tmp_path, alphas_cumprod):
    settings = SETTINGS.model_copy(update={"steps": 3})
    with pytest.raises(LaqfiError, match="at step 3"):
        train(trainer(alphas_cumprod, settings), torch.full_like(DIGITS, float("inf")), tmp_path / "state")


def test_every_image_is_seen_once_per_epoch():
    seen = torch.cat([batch_indices(step, 50, SETTINGS) for step in range(50)])  # 200 draws: four epochs
    for epoch in seen.split(50):
        assert sorted(epoch.tolist()) == list(range(50))
    assert seen[:50].tolist() != seen[50:100].tolist()


def test_the_learning_rate_warms_up_and_ends_near_zero():
    rates = [learning_rate(step, SETTINGS) for step in range(SETTINGS.steps)]
    assert rates[0] == pytest.approx(SETTINGS.lr / 10)
    assert max(rates) == rates[10] == pytest.approx(SETTINGS.lr)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001 * SETTINGS.lr
