"""Learned rounding: its start and its penalty by hand, a block, a walk, seams, steps of inputs, and a killed walk."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from laqfi.quant import adaround
from laqfi.quant.adaround import Soft, penalty, reconstruct, sharpness_at
from laqfi.quant.blocks import blocks_of, calls_of
from laqfi.quant.calibration import CalibrationSet, inputs_of
from laqfi.quant.choice import Choice
from laqfi.quant.evidence import Evidence
from laqfi.quant.fitted import split_at_seams
from laqfi.quant.ranges import measured_inputs
from laqfi.quant.recipe import Activations, Reconstruct
from laqfi.quant.resume import Resume
from laqfi.quant.rounding import store
from laqfi.quant.steps import learned_steps
from laqfi.storage.activations import RoundedInputs
from laqfi.storage.formats import Format
from laqfi.storage.layout import Layout


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x, time):
        return x + self.two(torch.relu(self.one(x) + time))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.time, self.first = nn.Linear(1, 4), nn.Conv2d(1, 4, 3, padding=1)
        self.block, self.seamed, self.last = Residual(), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 1, 1)

    def forward(self, x, t):
        first = self.first(x)
        inner = self.block(first, self.time(t[:, None].float() / 100)[:, :, None, None])
        return self.last(torch.relu(self.seamed(torch.cat([inner, first], 1))))


@pytest.fixture
def found() -> CalibrationSet:
    return CalibrationSet(torch.randn(3, 8, 1, 6, 6, generator=torch.Generator().manual_seed(1)), [90, 50, 10])


def network() -> Small:
    return Small().eval().requires_grad_(False)


def stored_as(format: str, model: nn.Module) -> dict:
    return {
        name: store(w.detach(), Layout(Format(format if w.dim() > 1 else "float32"), tuple(w.shape)), "max")
        for name, w in model.named_parameters()
    }


def walked(found, path: Path, iterations: int = 200) -> tuple[nn.Module, dict]:
    student = network()
    layers = [one.name for one in inputs_of(student, found.x[0, :1], torch.tensor([90]), 8)]
    settings = Reconstruct(iterations=iterations, batch_size=8)
    stored = stored_as("int3", student)
    return student, reconstruct(student, network(), stored, (Residual,), layers, found, settings, Resume(path))


def test_learning_starts_where_every_weight_stands_for_itself():
    weight = torch.tensor([[0.3, -0.7, 0.05, 1.0]])
    soft = Soft.of(store(weight, Layout(Format("int4"), (1, 4)), "max"))
    inside = (soft.h() > 0.011) & (soft.h() < 0.989)  # of a weight on the grid h is kept from 0 and 1
    assert torch.allclose(soft.weight(soft.h())[inside], weight[inside], atol=1e-6)
    assert (soft.weight(soft.h()) - weight).abs().max() <= 0.02 * soft.grid.scale.abs().max()


def test_the_rectified_sigmoid_by_hand():
    soft = Soft.of(store(torch.tensor([[1.0, 0.5]]), Layout(Format("int4"), (1, 2)), "max"))
    with torch.no_grad():
        soft.alpha.copy_(torch.tensor([[0.0, 9.0]]))
    assert soft.h().tolist()[0] == pytest.approx([0.5, 1.0])


def test_the_penalty_is_none_for_whole_codes_and_one_for_each_that_is_half_way():
    assert penalty(torch.tensor([0.0, 1.0, 0.5]), 2.0).item() == pytest.approx(1)
    assert penalty(torch.tensor([0.75]), 2.0).item() == pytest.approx(1 - 0.5**2)
    assert penalty(torch.tensor([0.75]), 20.0).item() == pytest.approx(1 - 0.5**20)


def test_the_penalty_comes_after_the_warm_up_and_gets_sharper():
    assert sharpness_at(0.19) is None
    assert sharpness_at(0.2) == 20
    assert sharpness_at(0.6) == pytest.approx(11)
    assert sharpness_at(1.0) == pytest.approx(2)


def test_blocks_hold_their_layers_and_others_stand_alone(found):
    layers = [one.name for one in inputs_of(network(), found.x[0, :1], torch.tensor([90]), 8)]
    assert blocks_of(network(), (Residual,), layers) == {
        "first": ["first"],
        "time": ["time"],
        "block": ["block.one", "block.two"],
        "seamed": ["seamed"],
        "last": ["last"],
    }


def test_what_a_block_got_gives_what_it_gave(found):
    model = network()
    calls = calls_of(model, "block", found)
    assert calls.output.shape == (24, 4, 6, 6)
    some = torch.tensor([3, 20])
    assert torch.allclose(model.block(*calls.of(some)), calls.output[some], atol=1e-6)


def test_learned_rounding_is_on_the_grid_and_nearer_to_the_network_than_nearest(found, tmp_path):
    student, learned = walked(found, tmp_path / "resume")
    base, nearest = network(), network()
    begun = stored_as("int3", base)
    with torch.no_grad():
        for name, one in begun.items():
            nearest.get_parameter(name).copy_(one.layout.restore(one.parts))
            place = learned[name].layout.codes(learned[name].parts).codes if one.layout.format.name == "int3" else None
            assert place is None or (place - one.layout.codes(one.parts).codes).abs().max() <= 1
            assert torch.equal(student.get_parameter(name), learned[name].layout.restore(learned[name].parts))
    errors = [(found.predictions(one) - found.predictions(base)).square().mean().item() for one in (student, nearest)]
    assert errors[0] < 0.6 * errors[1]


def test_a_block_that_learning_makes_worse_keeps_its_codes(found, tmp_path, monkeypatch):
    def far_off(soft: Soft):
        return replace(soft.stored, parts={key: torch.zeros_like(part) for key, part in soft.stored.parts.items()})

    monkeypatch.setattr(adaround.Soft, "hard", far_off)
    _, learned = walked(found, tmp_path / "resume", iterations=2)
    begun = stored_as("int3", network())
    for name, one in begun.items():
        assert all(torch.equal(part, learned[name].parts[key]) for key, part in one.parts.items())


def test_a_killed_walk_goes_on_to_the_same_codes(found, tmp_path, monkeypatch):
    _, whole = walked(found, tmp_path / "whole", iterations=20)
    fit = adaround.fit_block
    monkeypatch.setattr(adaround, "fit_block", lambda block, name, *o: killed_at_seam(fit, block, name, *o))
    with pytest.raises(KeyboardInterrupt):
        walked(found, tmp_path / "resume", iterations=20)
    again = []
    monkeypatch.setattr(adaround, "fit_block", lambda block, name, *o: again.append(name) or fit(block, name, *o))
    _, resumed = walked(found, tmp_path / "resume", iterations=20)
    assert again == ["seamed", "last"]
    for name, one in whole.items():
        assert all(torch.equal(part, resumed[name].parts[key]) for key, part in one.parts.items())


def killed_at_seam(fit, block, name, *others):
    if name == "seamed":
        raise KeyboardInterrupt
    return fit(block, name, *others)


def test_weights_on_both_sides_of_a_seam_have_scales_of_their_own(found):
    model = network()
    weights = [Evidence(name, None, 0.0, w.detach()) for name, w in model.named_parameters()]
    choices = {t.name: Choice(Format("int4")) for t in weights if t.is_matrix}
    split = split_at_seams(weights, choices, model, found)
    changed = {name for name in choices if split[name] != choices[name]}
    assert changed == {"seamed.weight"}
    assert split["seamed.weight"].format.group_size == 4


def test_learned_steps_are_no_worse_and_keep_their_zero_points(found):
    model = network()
    about, tables = measured_inputs(model, Activations(bits=3), found)
    learned = learned_steps(RoundedInputs(network(), about, dict(tables)), model, about, (Residual,), found, 60)
    assert torch.equal(learned["activation/zero_point"], tables["activation/zero_point"])
    assert not torch.equal(learned["activation/scale"], tables["activation/scale"])
    errors = []
    for some in (tables, learned):
        quantized = RoundedInputs(network(), about, {key: one.clone() for key, one in some.items()})
        errors.append((found.predictions(quantized) - found.predictions(model)).square().mean().item())
    assert errors[1] < errors[0]
    assert math.isfinite(errors[1])
