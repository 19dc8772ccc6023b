"""Recovery: a scale that is known is found, what learns is what would be stored, and a killed one ends in the same."""

import math
import os
import signal
from copy import deepcopy

import pytest
import torch
from torch import nn

from laqfi.base.errors import LaqfiError
from laqfi.quant.calibration import CalibrationSet
from laqfi.quant.learned import LearnedTensor, as_stored
from laqfi.quant.recipe import Recover
from laqfi.quant.recovered import take_place
from laqfi.quant.recovery import Recovery, draws, recover
from laqfi.quant.rounding import store
from laqfi.storage.coded import encode
from laqfi.storage.formats import FLOATS, Format
from laqfi.storage.layout import Codes, Layout
from laqfi.storage.modules import load_stored

FORMATS = [
    Layout(Format("int2"), (6, 4, 3, 3)),
    Layout(Format("int3", symmetric=False), (6, 4, 3, 3)),
    Layout(Format("int5", group_size=8), (6, 4, 3, 3), taps=(1, 4, 5)),
    Layout(Format("int8", group_size=-1), (6, 4, 3, 3), axis=1),
    *(Layout(Format(name), (6, 4)) for name in FLOATS),
]


def tensor_of(layout: Layout, learn="codes", size=1.0) -> LearnedTensor:
    weight = size * torch.randn(layout.shape, generator=torch.Generator().manual_seed(0))
    return LearnedTensor(layout, store(weight, layout, "mse").parts, learn)


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key].float(), other[key].float()) for key in one)


@pytest.mark.parametrize("layout", FORMATS, ids=lambda one: one.format.name)
@pytest.mark.parametrize("far", [0.0, 0.3, 100.0])
def test_what_a_layer_computes_with_is_to_the_last_bit_what_is_stored(layout, far):
    one, begun = tensor_of(layout), tensor_of(layout).begun
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter += far * torch.randn(parameter.shape, generator=random)
        one.keep_in_range()
        found = one.parts()
        assert torch.equal(one(torch.float32), layout.restore(found))
    assert {key: (part.dtype, part.shape) for key, part in found.items()} == layout.part_shapes()
    assert all(part.float().isfinite().all() for part in found.values())
    if far == 0:
        assert same(found, begun)
    elif not layout.format.is_float:
        assert layout.codes(found).codes.max() < layout.format.levels
        assert ".zero_point" not in begun or torch.equal(found[".zero_point"], begun[".zero_point"])


@pytest.mark.parametrize("scale", [6e-8, 1e-6, 5e-5, 0.5, 60_000.0])
def test_a_scale_stays_where_it_is_as_long_as_nothing_moves_it(scale):
    """Also one below the normal numbers of float16, which the steps of open grids are."""
    layout = Layout(Format("int12", group_size=-1), (2, 3))
    codes = Codes(torch.tensor([[2048.0, 2049, 2047, 4000, 100, 2050]]), torch.tensor([[scale]]).half().float(), 2048)
    one = LearnedTensor(layout, layout.parts(codes), "scales")
    before = one(torch.float32).clone()
    one.keep_in_range()
    assert torch.equal(one(torch.float32), before)
    one.logs.data.fill_(-99.0)
    one.keep_in_range()
    assert one.parts()[".scale"].item() > 0


def test_a_scale_of_zero_and_the_sign_of_a_scale_stay():
    layout = Layout(Format("int4"), (3, 4))
    codes = Codes(torch.full((3, 4), 3.0), torch.tensor([[0.0], [-0.5], [0.5]]), 8)
    one = LearnedTensor(layout, layout.parts(codes), "scales")
    with torch.no_grad():
        one.logs += 50.0
        one.keep_in_range()
    assert one.parts()[".scale"].sign().tolist() == [0, -1, 1]
    assert one.parts()[".scale"].abs().max() == torch.finfo(torch.float16).max


def test_codes_have_the_derivative_of_their_scale_and_scales_that_of_their_code():
    layout = Layout(Format("int4"), (1, 2))
    one = LearnedTensor(layout, layout.parts(Codes(torch.tensor([[3.0, 9.0]]), torch.tensor([[0.5]]), 8)), "codes")
    (one(torch.float32) * torch.tensor([[1.0, 10.0]])).sum().backward()
    assert one.places.grad.tolist() == [[0.5, 5.0]]
    assert one.logs.grad.item() == 0.5 * (3 - 8) + 10 * 0.5 * (9 - 8)


def learning_codes(codes: torch.Tensor) -> LearnedTensor:
    layout = Layout(Format("int12", group_size=-1), tuple(codes.shape))
    return LearnedTensor(layout, layout.parts(Codes(codes.view(1, -1) + 2048, torch.ones(1, 1), 2048)), "codes")


@pytest.mark.parametrize("size", [0.3, 0.6, 2.0, 8.0])
@pytest.mark.parametrize("spread", [0.0, 0.7])
def test_the_bits_of_codes_are_about_those_of_the_coder(size, spread):
    """Where rows and columns are alike and where they are not, from half a bit to five."""
    random = torch.Generator().manual_seed(0)
    rows, columns, one = (torch.randn(n, generator=random) for n in ((128, 1), (1, 256), (128, 256)))
    learned = learning_codes((size * (spread * rows).exp() * (spread * columns).exp() * one).round().clamp(-2000, 2000))
    code = encode({f"w{part}": one for part, one in learned.parts().items()}, {"w": learned.layout}, {})
    assert learned.bits().item() == pytest.approx(8 * len(code), abs=0.1 * one.numel())


def test_the_bits_of_a_code_fall_with_its_size_by_those_that_a_smaller_one_saves():
    random = torch.Generator().manual_seed(0)
    learned = learning_codes((3 * torch.randn(40, 50, generator=random)).round())
    learned.bits().backward()
    slope = learned.places.grad.view(40, 50)
    whole = (learned.places.detach() - 2048).view(40, 50)
    assert torch.equal(slope.sign(), whole.sign())
    before = learned.bits().item()
    place = whole.abs().flatten().argmax()
    with torch.no_grad():
        learned.places.view(-1)[place] -= whole.flatten()[place].sign()
    assert before - learned.bits().item() == pytest.approx(slope.flatten()[place].abs().item(), rel=0.1)
    learned = learning_codes(torch.zeros(4, 5))
    learned.bits().backward()
    assert learned.bits().item() < 2  # of twenty
    assert learned.places.grad.isfinite().all()


def test_a_number_and_its_rounding_add_up_exactly():
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0)).exp2()
    for dtype in FLOATS.values():
        assert torch.equal(as_stored(x, dtype), x.to(dtype).float())


class Linear(nn.Module):
    """y = W x + b, whatever the timestep is."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x, t):
        return self.layer(x.flatten(1)).view_as(x)


def linear(learn: str, off: float = 0.7, **settings) -> tuple[Recovery, dict]:
    """FP32's weights are on the grid of the codes with the scale `off` times as large as stored; its bias is not 0."""
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    layouts = {"layer.weight": Layout(Format("int4"), (16, 16)), "layer.bias": Layout(Format("float16"), (16,))}
    codes = torch.randint(0, 16, (16, 16), generator=random).float()
    scale = (0.05 + 0.1 * torch.rand(16, 1, generator=random)).half().float()
    parts = layouts["layer.weight"].parts(Codes(codes, scale, 8))
    teacher, student = Linear().requires_grad_(False), Linear().requires_grad_(False)
    teacher.layer.weight.copy_(off * scale * (codes - 8))
    load_stored(
        student, layouts, {f"layer.weight{k}": v for k, v in parts.items()} | {"layer.bias": torch.zeros(16).half()}
    )
    stored = {"layer.weight": parts, "layer.bias": {"": torch.zeros(16).half()}}
    learned = {name: LearnedTensor(layout, stored[name], learn) for name, layout in layouts.items()}
    take_place(student, learned)
    images = torch.rand(64, 1, 4, 4, generator=random) * 2 - 1
    found = CalibrationSet(torch.randn(3, 8, 1, 4, 4, generator=random), [90, 50, 10])
    chosen = Recover(**{"iterations": 300, "learn": learn, "lr": 0.02} | settings)
    alphas = torch.cat([torch.ones(1), torch.linspace(0.99, 0.01, 100)])
    recovery = Recovery(student, teacher, learned, draws(chosen, images, alphas, found), chosen)
    return recovery, {"scale": off * scale, "bias": teacher.layer.bias, "stored": stored}


@pytest.mark.parametrize("data", ["images", "samples"])
def test_of_a_layer_whose_best_scales_and_biases_are_known_they_are_found(tmp_path, data):
    recovery, known = linear("scales", data=data)
    before, after = recover(recovery, tmp_path / "resume")
    assert after < 1e-4 * before
    parts = {name: one.parts() for name, one in recovery.learned.items()}
    assert torch.allclose(parts["layer.weight"][".scale"].float()[:, None], known["scale"], rtol=0.02)
    assert torch.allclose(parts["layer.bias"][""].float(), known["bias"], atol=0.01)
    assert torch.equal(parts["layer.weight"][".packed"], known["stored"]["layer.weight"][".packed"])


def test_codes_learn_what_scales_cannot(tmp_path):
    recovery, known = linear("codes", iterations=400, code_lr=0.05)
    with torch.no_grad():  # one weight is three codes away
        recovery.teacher.layer.weight[2, 5] += 3 * known["scale"][2, 0]
    before, after = recover(recovery, tmp_path / "resume")
    assert after < 0.02 * before
    assert not torch.equal(
        recovery.learned["layer.weight"].parts()[".packed"], known["stored"]["layer.weight"][".packed"]
    )


@pytest.mark.parametrize(("learn", "moves"), [("norms", {""}), ("scales", {"", ".scale"})])
def test_what_does_not_learn_stays(tmp_path, learn, moves):
    recovery, known = linear(learn, iterations=5)
    recover(recovery, tmp_path / "resume")
    for name, one in recovery.learned.items():
        for part, begun in known["stored"][name].items():
            assert torch.equal(one.parts()[part], begun) != (part in moves), (name, part)


def parts_of(recovery: Recovery) -> dict:
    return {f"{name}{part}": tensor for name, one in recovery.learned.items() for part, tensor in one.parts().items()}


def limited(recovery: Recovery, share: float) -> Recovery:
    """With codes that may take this share of the bits that they take in the beginning."""
    limit = share * recovery.bits().item() * recovery.weights
    recovery.over = lambda: math.ceil((recovery.bits().item() * recovery.weights - limit) / 8)
    recovery.__post_init__()
    return recovery


@pytest.mark.parametrize("share", [0.8, 0.9])
def test_codes_with_a_limit_take_the_bits_that_it_leaves(tmp_path, share):
    free, _ = linear("codes", iterations=400)
    limited_one, _ = linear("codes", iterations=400)
    limited(limited_one, share)
    begun = free.bits().item()
    (before, freely), (_, within) = recover(free, tmp_path / "free"), recover(limited_one, tmp_path / "limited")
    assert 0.94 * share * begun < limited_one.bits().item() <= 1.001 * share * begun
    assert freely < within < before


@pytest.mark.parametrize("share", [None, 0.9])
def test_a_killed_recovery_goes_on_to_the_same_bytes(tmp_path, monkeypatch, share):
    settings = {"iterations": 37, "data": "images", "batch_size": 4}

    def learning() -> Recovery:
        recovery, _ = linear("codes", **settings)
        return recovery if share is None else limited(recovery, share)

    whole, killed, resumed = learning(), learning(), learning()
    recover(whole, tmp_path / "whole")
    ticks = iter(range(0, 10**6, 1000))  # by which writing the state takes long: it is written once
    advance = Recovery.advance
    monkeypatch.setattr(Recovery, "advance", lambda one: die() if one.step == 25 else advance(one))
    with pytest.raises(KeyboardInterrupt):
        recover(killed, tmp_path / "resume", clock=lambda: next(ticks))
    steps = []
    monkeypatch.setattr(Recovery, "advance", lambda one: steps.append(one.step) or advance(one))
    recover(resumed, tmp_path / "resume")
    assert steps == list(range(10, 37))
    assert same(parts_of(resumed), parts_of(whole))


def die():
    raise KeyboardInterrupt


def test_a_recovery_that_is_asked_to_end_says_how_to_go_on(tmp_path, monkeypatch):
    recovery, _ = linear("norms", iterations=30)
    advance = Recovery.advance

    def asked(one: Recovery):
        os.kill(os.getpid(), signal.SIGTERM)
        return advance(one)

    monkeypatch.setattr(Recovery, "advance", asked)
    with pytest.raises(LaqfiError, match=r"^recover: stopped by SIGTERM at step 1; run again to go on from there$"):
        recover(recovery, tmp_path / "resume")
    assert (tmp_path / "resume").exists()


def test_a_loss_that_is_no_number_is_refused(tmp_path):
    recovery, _ = linear("norms", iterations=30)
    with torch.no_grad():
        recovery.teacher.layer.bias.fill_(torch.nan)
    with pytest.raises(
        LaqfiError, match=r"^recover: the loss is nan at step 10; lower recover\.lr or recover\.code_lr$"
    ):
        recover(recovery, tmp_path / "resume")


def test_what_is_tried_is_not_what_was_learned_from():
    found = CalibrationSet(torch.arange(40.0).view(2, 20, 1, 1, 1), [9, 1])
    images = torch.arange(100.0).view(100, 1, 1, 1)
    for data in ("images", "samples"):
        settings = Recover(iterations=1, data=data, batch_size=500)
        learned, tried = draws(settings, images, torch.ones(10), found)
        assert not set(learned(0)[0].flatten().tolist()) & set(tried(0)[0].flatten().tolist())
        assert torch.equal(learned(3)[0], deepcopy(learned)(3)[0])
        assert not torch.equal(learned(3)[0], learned(4)[0])
