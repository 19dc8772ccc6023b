import signal

import pytest
import torch
from sklearn.datasets import load_digits

from laqfi.base import files
from laqfi.base.errors import LaqfiError
from laqfi.diffusion.health import STRETCH, check_alive, check_kept, check_learnt
from laqfi.diffusion.params import Train
from laqfi.diffusion.training import Saving, Trainer, batch_indices, epoch_order, learning_rate, train
from laqfi.models.unet import UNet, Unet

SETTINGS = Train(steps=80, batch_size=4, lr=0.01, warmup=10, beta2=0.999, ema=0.9, grad_clip=1.0, seed=0)
DIGITS = torch.tensor(load_digits().images[:50, None] / 8 - 1, dtype=torch.float32)


CPU = torch.device("cpu")


class KilledError(Exception):
    pass


def trainer(alphas_cumprod, settings=SETTINGS, memory_format=torch.contiguous_format):
    torch.manual_seed(0)
    config = Unet(family="unet", base_channels=4, attention=[2, 6], heads=2, dropout=0.1)
    return Trainer(UNet(config, image_channels=1).to(memory_format=memory_format), alphas_cumprod, settings)


def clock(kill_at=None):
    """A clock that moves a second each time it is read, and kills at a given reading: the start, then every save."""
    readings = iter(range(10_000))

    def read():
        now = next(readings)
        if now == kill_at:
            raise KilledError
        return now

    return read


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, alphas_cumprod, memory_format):
    straight = trainer(alphas_cumprod, memory_format=memory_format)
    train(straight, DIGITS, tmp_path / "never", save_every=1e9)
    assert not (tmp_path / "never").exists()

    state = tmp_path / "state.safetensors"
    with pytest.raises(KilledError):
        train(
            trainer(alphas_cumprod, memory_format=memory_format),
            DIGITS,
            state,
            save_every=0,
            clock=clock(kill_at=2),
        )
    resumed = trainer(alphas_cumprod, memory_format=memory_format)
    train(resumed, DIGITS, state, save_every=1e9)

    for name, tensor in straight.state().items():
        assert torch.equal(resumed.state()[name], tensor), name


def test_what_is_restored_lies_in_memory_as_its_parameter(tmp_path, alphas_cumprod):
    """The fused optimizer takes element i of all four by place: another layout is an error on a GPU, wrong on a CPU."""
    state = tmp_path / "state.safetensors"
    with pytest.raises(KilledError):
        train(trainer(alphas_cumprod), DIGITS, state, save_every=0, clock=clock(kill_at=2))
    resumed = trainer(alphas_cumprod, memory_format=torch.channels_last)
    resumed.restore(files.read_tensors(state)[0])
    assert any(not parameter.is_contiguous() for parameter in resumed.parameters.values())
    for name, parameter in resumed.parameters.items():
        moments = resumed.optimizer.state[parameter]
        for tensor in (moments["exp_avg"], moments["exp_avg_sq"], resumed.ema[name]):
            assert tensor.stride() == parameter.stride(), name


def test_sigterm_writes_the_state_and_stops_and_the_run_resumes_to_the_same_bytes(tmp_path, alphas_cumprod):
    straight = trainer(alphas_cumprod)
    train(straight, DIGITS, tmp_path / "never", save_every=1e9)

    state = tmp_path / "state.safetensors"
    stopped = trainer(alphas_cumprod)
    advance = stopped.advance

    def advance_and_terminate(batch):
        advance(batch)
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
    resumed.advance = lambda batch: (taken.append(resumed.step), Trainer.advance(resumed, batch))
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


@pytest.mark.parametrize(("lr", "steps", "warmup"), [(0.3, 200, 0), (0.1, 200, 10)])
def test_a_network_that_died_is_no_model(tmp_path, alphas_cumprod, lr, steps, warmup):
    """At 0.3 the loss explodes; at 0.1 it stays near 1, as the network predicts the same for every image."""
    settings = SETTINGS.model_copy(update={"lr": lr, "steps": steps, "warmup": warmup})
    with pytest.raises(LaqfiError, match=r"it has learnt nothing|the network has died"):
        train(trainer(alphas_cumprod, settings), DIGITS, tmp_path / "state")


def test_one_step_of_training_has_learnt_something(tmp_path, alphas_cumprod):
    train(trainer(alphas_cumprod, SETTINGS.model_copy(update={"steps": 1, "warmup": 0})), DIGITS, tmp_path / "state")


def test_a_network_that_lost_what_it_had_learnt_is_told_from_one_whose_loss_is_noisy():
    noisy = 0.1 + 0.05 * torch.rand(1000, generator=torch.Generator().manual_seed(0))
    check_kept(torch.cat([torch.ones(100), noisy]))
    with pytest.raises(LaqfiError, match=r"ends at 1 and was 0.12\d by step \d+: the network has died"):
        check_kept(torch.cat([noisy, torch.ones(100)]))


def test_a_network_that_predicts_zero_has_learnt_nothing_and_its_ema_is_what_counts(alphas_cumprod):
    run = trainer(alphas_cumprod, SETTINGS.model_copy(update={"steps": 30}))
    zero = {name: torch.zeros_like(weight) for name, weight in run.ema.items()}
    for step in range(30):
        run.advance(DIGITS[batch_indices(step, len(DIGITS), run.settings, CPU)])
    check_learnt(run.network, run.ema, DIGITS, run.alphas_cumprod, 0)
    with pytest.raises(LaqfiError, match=r"squared error is (1|0\.\d+), and that of predicting no noise at all \1"):
        check_learnt(run.network, zero, DIGITS, run.alphas_cumprod, 0)


def test_the_state_is_saved_less_often_where_writing_it_takes_long(tmp_path, alphas_cumprod):
    """Each reading of the clock is a second later, so that saving takes one: by then 50 are to pass until the next."""
    run = trainer(alphas_cumprod)
    run.advance(DIGITS[:4])
    saving, saves = Saving(run, tmp_path / "state", 0, clock()), []
    for reading in range(60):
        (tmp_path / "state").unlink(missing_ok=True)
        saving.when_due()
        if (tmp_path / "state").exists():
            saves.append(reading)
    assert saves == [0, 51]


def test_every_image_is_seen_once_per_epoch():
    seen = torch.cat([batch_indices(step, 50, SETTINGS, CPU) for step in range(50)])  # 200 draws: four epochs
    for epoch in seen.split(50):
        assert sorted(epoch.tolist()) == list(range(50))
    assert seen[:50].tolist() != seen[50:100].tolist()


@pytest.mark.parametrize("images", [3, 50, 64])
def test_batches_follow_each_other_through_the_shuffled_epochs(images):
    """Also where a batch holds the end of one epoch and the start of the next, or several epochs."""
    settings = SETTINGS.model_copy(update={"batch_size": 16})
    orders = [epoch_order(settings.seed, epoch, images, CPU).tolist() for epoch in range(60)]
    one_after_the_other = [index for order in orders for index in order]
    for step in range(10):
        wanted = one_after_the_other[16 * step : 16 * (step + 1)]
        assert batch_indices(step, images, settings, CPU).tolist() == wanted


def test_the_learning_rate_warms_up_and_ends_near_zero():
    rates = [learning_rate(step, SETTINGS) for step in range(SETTINGS.steps)]
    assert rates[0] == pytest.approx(SETTINGS.lr / 10)
    assert max(rates) == rates[10] == pytest.approx(SETTINGS.lr)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001 * SETTINGS.lr


def losses_of(*stretches: float) -> torch.Tensor:
    return torch.tensor(stretches).repeat_interleave(STRETCH)


@pytest.mark.parametrize(
    "stretches", [[1.0] * 30, [1.0, *[0.05] * 30], [0.05, *[1.0] * 19], [0.05, *[0.4] * 40], [0.05, *[1.0] * 19, 0.2]]
)
def test_a_loss_that_is_high_or_jumps_is_left_alone(stretches):
    check_alive(losses_of(*stretches))


def test_a_loss_that_stays_far_above_its_lowest_ends_training_at_once():
    with pytest.raises(LaqfiError, match=r"the loss is 1 at step 1050 and was 0\.05: the network has died"):
        check_alive(losses_of(0.05, *[1.0] * 20))


def test_beta2_decides_how_long_squared_gradients_are_remembered(alphas_cumprod):
    """After one step the second moment is (1 - beta2) g²."""
    moments = []
    for beta2 in (0.99, 0.999):
        one = trainer(alphas_cumprod, SETTINGS.model_copy(update={"beta2": beta2}))
        one.advance(DIGITS[:4])
        moments.append(torch.cat([state["exp_avg_sq"].flatten() for state in one.optimizer.state.values()]))
    torch.testing.assert_close(moments[0], 10 * moments[1], rtol=1e-3, atol=0)
