from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laqfi.base.pictures import from_uint8, to_uint8
from laqfi.diffusion.process import add_noise, linear_alphas_cumprod
from laqfi.sampling.samplers import ddim, ddpm, predict_x0, sample, spaced_timesteps

steady = settings(deadline=None, derandomize=True, max_examples=100)
SCHEDULE = linear_alphas_cumprod(1000, 0.0001, 0.02)
SAMPLERS = [("ddim", 0.0), ("ddim", 0.5), ("ddim", 1.0), ("ddpm", 0.0)]
lengths_and_steps = st.integers(1, 2000).flatmap(lambda last: st.tuples(st.just(last), st.integers(1, last)))
values = st.floats(-3, 3)


@st.composite
def noise_levels(draw) -> tuple[float, float]:
    """(alpha_bar_t, alpha_bar_prev) of a schedule: the earlier one is larger."""
    previous = draw(st.floats(0.01, 0.999))
    return previous * draw(st.floats(0.01, 0.999)), previous


class Draws:
    """Standard normal noise that counts how often it was asked for."""

    def __init__(self, *shape: int):
        self.shape, self.count = shape, 0
        self.random = torch.Generator().manual_seed(0)

    def __call__(self) -> torch.Tensor:
        self.count += 1
        return torch.randn(self.shape, generator=self.random)


def scalar(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def knowing(x0: torch.Tensor):
    """The denoiser that knows which image hides behind the noise."""

    def denoiser(x, timestep):
        alpha_bar = SCHEDULE[timestep].view(-1, 1, 1, 1)
        return ((x - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()).float()

    return denoiser


def gaussian_denoiser(deviation: float):
    """The posterior mean of the noise where the data are N(0, deviation²)."""

    def denoiser(x, timestep):
        alpha_bar = SCHEDULE[timestep].view(-1, 1, 1, 1)
        return ((1 - alpha_bar).sqrt() * x / (alpha_bar * deviation**2 + 1 - alpha_bar)).float()

    return denoiser


def run(denoiser, draw, sampler="ddim", steps=5, eta=0.0, clip=False) -> torch.Tensor:
    return sample(denoiser, draw, SCHEDULE, sampler=sampler, steps=steps, eta=eta, clip=clip)


def test_schedule_starts_at_the_clean_image_and_decreases():
    assert SCHEDULE[0] == 1
    assert len(SCHEDULE) == 1001
    assert (SCHEDULE.diff() < 0).all()
    assert SCHEDULE[-1] > 0


def test_schedule_is_the_cumulative_product_of_the_linear_betas():
    expected = np.cumprod(1 - np.linspace(0.0001, 0.02, 1000))
    np.testing.assert_allclose(SCHEDULE[1:].numpy(), expected, rtol=1e-12)


def test_add_noise_weighs_image_and_noise_by_each_sample_s_timestep():
    x0, noise = torch.full((3, 1, 2, 2), 2.0), torch.full((3, 1, 2, 2), 3.0)
    noised = add_noise(x0, noise, torch.tensor([0, 10, 1000]), SCHEDULE)
    kept = SCHEDULE[[0, 10, 1000]].numpy()
    expected = np.sqrt(kept) * 2 + np.sqrt(1 - kept) * 3
    np.testing.assert_allclose(noised.numpy(), np.broadcast_to(expected[:, None, None, None], (3, 1, 2, 2)), rtol=1e-6)
    assert noised.dtype == torch.float32


def test_add_noise_keeps_unit_variance_of_unit_data():
    x0, noise = torch.randn(2, 20_000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    noised = add_noise(x0, noise, torch.full((20_000,), 300), SCHEDULE)
    assert noised.std().item() == pytest.approx(1, abs=0.02)


@steady
@given(lengths_and_steps)
def test_spaced_timesteps_fall_from_the_last_to_the_first(case):
    last, steps = case
    timesteps = spaced_timesteps(last, steps)
    assert len(timesteps) == steps
    assert timesteps[0] == last
    assert steps == 1 or timesteps[-1] == 1
    assert all(later < earlier for earlier, later in pairwise(timesteps))


@steady
@given(lengths_and_steps)
def test_spaced_timesteps_are_the_nearest_to_even_spacing(case):
    last, steps = case
    exact = [last - place * (last - 1) / max(steps - 1, 1) for place in range(steps)]
    assert spaced_timesteps(last, steps) == pytest.approx(exact, abs=0.5 + 1e-9, rel=0)


def test_all_timesteps_are_each_visited_once():
    assert spaced_timesteps(1000, 1000) == list(range(1000, 0, -1))


@steady
@given(values, values, st.floats(0.01, 0.999))
def test_predict_x0_inverts_add_noise(x0, noise, alpha_bar):
    x = alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * noise
    assert predict_x0(scalar(x), scalar(noise), alpha_bar, clip=False).item() == pytest.approx(x0, abs=1e-9)
    clipped = predict_x0(scalar(x), scalar(noise), alpha_bar, clip=True).item()
    assert clipped == pytest.approx(min(max(x0, -1), 1), abs=1e-9)


@steady
@given(values, values, noise_levels())
def test_deterministic_ddim_moves_along_the_same_image_and_noise(x0, noise, levels):
    now, previous = levels
    x = now**0.5 * x0 + (1 - now) ** 0.5 * noise
    mean, sigma = ddim(scalar(x), scalar(noise), now, previous, eta=0.0, clip=False)
    assert sigma == 0
    assert mean.item() == pytest.approx(previous**0.5 * x0 + (1 - previous) ** 0.5 * noise, abs=1e-9)


@steady
@given(noise_levels(), st.floats(0, 1))
def test_ddim_splits_the_same_variance_between_old_and_new_noise_at_every_eta(levels, eta):
    now, previous = levels
    carried, sigma = ddim(scalar((1 - now) ** 0.5), scalar(1.0), now, previous, eta=eta, clip=False)
    _, full = ddim(scalar(0.0), scalar(0.0), now, previous, eta=1.0, clip=False)
    assert carried.item() ** 2 + sigma**2 == pytest.approx(1 - previous, rel=1e-9)
    assert sigma == pytest.approx(eta * full, rel=1e-9)


@steady
@given(values, values, noise_levels())
def test_ddim_with_eta_one_is_ddpm(x, noise, levels):
    mean, sigma = ddim(scalar(x), scalar(noise), *levels, eta=1.0, clip=False)
    posterior_mean, posterior_sigma = ddpm(scalar(x), scalar(noise), *levels, clip=False)
    assert mean.item() == pytest.approx(posterior_mean.item(), rel=1e-8, abs=1e-8)
    assert sigma == pytest.approx(posterior_sigma, rel=1e-9)


@steady
@given(values, values, noise_levels())
def test_ddpm_is_the_bayesian_posterior_of_the_previous_image(x, noise, levels):
    now, previous = levels
    x0 = predict_x0(scalar(x), scalar(noise), now, clip=False).item()
    kept = now / previous
    precision = 1 / (1 - previous) + kept / (1 - kept)
    expected = (previous**0.5 * x0 / (1 - previous) + kept**0.5 * x / (1 - kept)) / precision
    mean, sigma = ddpm(scalar(x), scalar(noise), now, previous, clip=False)
    assert mean.item() == pytest.approx(expected, rel=1e-8, abs=1e-8)
    assert sigma == pytest.approx(precision**-0.5, rel=1e-8)


def test_clipped_ddim_moves_along_the_noise_that_fits_the_clipped_image():
    now, previous = 0.5, 0.8
    x, noise = scalar(3.0), scalar(0.1)
    mean, _ = ddim(x, noise, now, previous, eta=0.0, clip=True)
    implied = (3.0 - now**0.5) / (1 - now) ** 0.5
    assert mean.item() == pytest.approx(previous**0.5 + (1 - previous) ** 0.5 * implied)


@pytest.mark.parametrize(("sampler", "eta"), SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_sampling_with_a_denoiser_that_knows_the_images_returns_them(sampler, eta, steps):
    x0 = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for clip in (False, True):
        drawn = run(knowing(x0), Draws(4, 1, 3, 3), sampler, steps, eta, clip)
        torch.testing.assert_close(drawn, x0, atol=1e-4, rtol=0)


@pytest.mark.parametrize("deviation", [0.3, 2.0])
@pytest.mark.parametrize(("sampler", "eta"), SAMPLERS)
def test_sampling_with_the_exact_gaussian_denoiser_gives_the_spread_of_the_data(sampler, eta, deviation):
    drawn = run(gaussian_denoiser(deviation), Draws(20_000, 1, 1, 1), sampler, 500, eta)
    assert drawn.std().item() == pytest.approx(deviation, rel=0.03)
    assert drawn.mean().item() == pytest.approx(0, abs=0.03 * deviation)


@pytest.mark.parametrize(("sampler", "eta"), SAMPLERS)
def test_clipping_keeps_images_in_range(sampler, eta):
    noise = Draws(50, 1, 4, 4)
    wild = run(lambda x, t: noise(), Draws(50, 1, 4, 4), sampler, 10, eta, clip=True)
    free = run(lambda x, t: noise(), Draws(50, 1, 4, 4), sampler, 10, eta, clip=False)
    assert wild.abs().max() <= 1 + 1e-6
    assert free.abs().max() > 1


@pytest.mark.parametrize(
    ("sampler", "eta", "steps", "count"),
    [("ddim", 0.0, 1, 1), ("ddim", 0.0, 10, 1), ("ddim", 0.5, 10, 10), ("ddpm", 0.0, 10, 10), ("ddpm", 0.0, 1, 1)],
)
def test_noise_is_drawn_once_at_the_start_and_for_every_step_but_the_last_that_adds_some(sampler, eta, steps, count):
    draw = Draws(2, 1, 2, 2)
    run(gaussian_denoiser(1.0), draw, sampler, steps, eta)
    assert draw.count == count


@pytest.mark.parametrize(("sampler", "eta"), SAMPLERS)
def test_every_step_adds_its_own_draw_to_the_mean(sampler, eta):
    """Written out for three steps: the first draw is where it starts, each later one is added with its sigma."""
    draws = [torch.full((1, 1, 1, 1), value) for value in (0.5, 1.0, -2.0)]
    left = iter(draws)
    found = run(lambda x, t: 0.1 * x, lambda: next(left), sampler, 3, eta)

    x, *more = draws
    for now, then in pairwise([*spaced_timesteps(1000, 3), 0]):
        levels = SCHEDULE[now].item(), SCHEDULE[then].item()
        step = (
            ddim(x, 0.1 * x, *levels, eta=eta, clip=False)
            if sampler == "ddim"
            else ddpm(x, 0.1 * x, *levels, clip=False)
        )
        x = step[0] + step[1] * (more.pop(0) if step[1] > 0 else 0)
    torch.testing.assert_close(found, x, rtol=1e-5, atol=1e-6)
    assert len(more) == (2 if sampler == "ddim" and eta == 0 else 0)


def test_denoiser_sees_the_whole_batch_at_each_spaced_timestep():
    seen = []

    def denoiser(x, timestep):
        seen.append(timestep.tolist())
        return x

    run(denoiser, Draws(3, 1, 2, 2), steps=6)
    assert seen == [[t] * 3 for t in spaced_timesteps(1000, 6)]


def test_uint8_survives_the_round_trip_for_every_value():
    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    assert np.array_equal(to_uint8(from_uint8(images)).numpy(), images)


def test_from_uint8_maps_black_and_white_to_the_ends_of_the_range():
    images = from_uint8(np.array([0, 51, 255], dtype=np.uint8).reshape(1, 1, 1, 3))
    assert images.dtype == torch.float32
    assert images.flatten().tolist() == pytest.approx([-1, -0.6, 1])


@steady
@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=20))
def test_to_uint8_maps_each_pixel_on_its_own(pixels):
    together = to_uint8(torch.tensor(pixels)).tolist()
    assert together == [to_uint8(torch.tensor(pixel)).item() for pixel in pixels]


def test_to_uint8_clamps_and_rounds_to_the_nearest_level():
    levels = torch.tensor([-5.0, -1.0, -0.9, 0.1, 1.0, 5.0])
    assert to_uint8(levels).tolist() == [0, 0, 13, 140, 255, 255]
    assert to_uint8(levels).dtype == torch.uint8


def test_from_uint8_accepts_arrays_that_are_not_contiguous():
    images = np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2)[::-1]
    assert np.array_equal(to_uint8(from_uint8(images)).numpy(), images)
