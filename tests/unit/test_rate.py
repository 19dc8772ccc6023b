"""Open grids of one step, met by their size: what a code makes of them, and that no file is larger than asked."""

import math

import pytest
import torch
from torch import nn

import laqfi
from laqfi.api import Measured
from laqfi.base.errors import LaqfiError
from laqfi.quant.evidence import Evidence
from laqfi.quant.fitting import finest
from laqfi.quant.knapsack import BudgetTooSmallError
from laqfi.quant.policies.every import bind, check
from laqfi.quant.rounding import store
from laqfi.storage.formats import Format
from laqfi.storage.layout import Layout
from laqfi.storage.pack import pack, packed_bytes, unpack


@pytest.mark.parametrize("bits", range(9, 13))
@pytest.mark.parametrize("count", [1, 8, 21])
def test_wide_codes_are_packed_without_gaps(bits, count):
    codes = torch.arange(count) * 977 % (1 << bits)
    packed = pack(codes, bits)
    assert packed.shape == (packed_bytes(count, bits),)
    assert torch.equal(unpack(packed, bits, count).long(), codes)
    with pytest.raises(ValueError, match="does not fit"):
        pack(torch.tensor([1 << bits]), bits)


@pytest.mark.parametrize(("limit", "best"), [(1000, 0), (605, 395), (57, 943), (40, 960)])
def test_the_finest_that_fits_is_found(limit, best):
    asked = []

    def size(place: int) -> int:
        asked.append(place)
        return 1000 - place

    assert finest(size, limit, 500, 2.0, (0, 960)) == best
    assert len(asked) == len(set(asked)) < 12


def test_a_size_that_does_not_fall_evenly_still_fits():
    def size(place: int) -> int:
        return 10_000 - 9 * place + 300 * math.floor(math.sin(place))

    for limit in range(1500, 9500, 700):
        place = finest(size, limit, 0, 1.0, (0, 1000))
        assert limit - 700 < size(place) <= limit


@pytest.mark.parametrize("slope", [0.3, 3.0, 30.0])
def test_how_sizes_fall_is_learned_from_those_that_were_seen(slope):
    asked = []

    def size(place: int) -> int:
        asked.append(place)
        return 100_000 - 3 * place

    assert 49_950 <= size(finest(size, 50_000, 100, slope, (0, 30_000))) <= 50_000
    assert len(set(asked)) <= 4


def test_a_limit_below_all_sizes_is_refused_with_the_least():
    with pytest.raises(BudgetTooSmallError, match="a target of 30 bytes is too small, the smallest feasible is 40"):
        finest(lambda place: 1000 - place, 30, 0, 1.0, (0, 960))


@pytest.mark.parametrize("slope", [1.0, 300.0])
def test_where_sizes_no_longer_change_the_search_does_not_walk(slope):
    """Up to place 300 sizes are as large as they can be, from 600 on as small."""
    asked = []

    def size(place: int) -> int:
        asked.append(place)
        return 10_000 - 20 * min(max(place, 300), 600)

    ends = (-16_384, 16_384)
    with pytest.raises(
        BudgetTooSmallError, match="a target of -2001 bytes is too small, the smallest feasible is -2000"
    ):
        finest(size, -2001, 0, slope, ends)
    assert len(asked) < 25
    for limit, found in ((-2000, -2000), (-1999, -2000), (4000, 4000), (4005, 4000), (4010, 4000)):
        asked.clear()
        assert size(finest(size, limit, 0, slope, ends)) == found
        assert len(asked) < 60


def test_steps_go_with_the_root_of_the_importance():
    torch.manual_seed(0)
    weight, layout = torch.randn(4, 300), Layout(Format("int12"), (4, 300))
    importance = torch.tensor([1.0, 4.0, 16.0, 0.0])[:, None].expand(4, 300)
    stored = store(weight, layout, "mse", importance, step=0.5)
    scales = stored.parts[".scale"].float()
    assert (scales[:2] / scales[1:3]).tolist() == [2, 2]
    base = 0.5 / math.sqrt(5.25)
    nearest = [2 ** (round(math.log2(5.25 / one)) / 2) for one in (1, 4, 16)]
    torch.testing.assert_close(scales[:3], base * torch.tensor(nearest), rtol=1e-3, atol=0)
    assert not stored.layout.restore(stored.parts)[3].any(), "what is of no importance is zero"
    assert (stored.delta[:3].abs().amax(1) <= scales[:3] / 2 * 1.001).all()
    biggest = int((weight[:3] / scales[:3, None]).round().abs().max())
    assert 2 ** (stored.layout.format.bits - 1) // 2 < biggest <= 2 ** (stored.layout.format.bits - 1)


def test_no_weight_lies_beyond_the_widest_format():
    weight, layout = torch.linspace(-1, 1, 100)[None], Layout(Format("int12", group_size=-1), (1, 100))
    stored = store(weight, layout, "mse", torch.ones(1, 100), step=1e-7)
    assert stored.layout.format.bits == 12
    assert stored.delta.abs().max() <= 2**0.5 * 0.5 / 2047 * 1.01


@pytest.mark.parametrize("largest", [2e-5, 1e-3, 0.03, 1.0, 4e4, 1.2e8])
@pytest.mark.parametrize("group_size", [0, -1])
def test_no_step_that_float16_cannot_hold_is_taken(largest, group_size):
    """Where steps below its normal numbers are rounded, no code is cut; a step is never 0 and never infinite."""
    torch.manual_seed(0)
    weight = largest * (2 * torch.rand(40, 30) - 1)
    weight[3], weight[5, 5] = 0, largest
    for step in (2.0**-64, 1.0, 2.0**64):
        for importance in (torch.ones(40, 30), torch.zeros(40, 30)):
            layout = Layout(Format("int12", group_size=group_size), (40, 30))
            stored = store(weight, layout, "mse", importance, step=step)
            scales = stored.layout.ungrouped(stored.parts[".scale"].float()[:, None])
            assert (scales > 0).all()
            assert scales.isfinite().all()
            assert (stored.delta.abs() <= 0.5001 * scales).all() or not stored.layout.restore(stored.parts).any()


def test_a_weight_beyond_all_steps_is_refused():
    with pytest.raises(LaqfiError, match=r"does not fit steps in float16; the step is .*, largest \|w\| is 1e\+30"):
        store(torch.tensor([[1e30, 1.0]]), Layout(Format("int12"), (1, 2)), "mse", torch.ones(1, 2), step=1.0)


def test_a_step_needs_importance():
    with pytest.raises(LaqfiError, match="has no Fisher information, which the search fisher and open grids work by"):
        store(torch.ones(2, 2), Layout(Format("int12"), (2, 2)), "mse", step=1.0)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 24, 3), nn.Conv2d(24, 24, 3)
        self.table = nn.Linear(64, 40)

    def forward(self, x, t):
        return self.table(self.two(self.one(x)).flatten(1)[:, :64])


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    model = Small()
    return model, {name: torch.rand_like(p) ** 4 for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        ("rate", {"rounding": "nearest"}),
        ("rate", {"rounding": "nearest", "group_size": 0, "rest": "float8_e4m3fn"}),
        ("budget", {"formats": ["int2", "int3", "int4", "int6", "int8", "float16"]}),
    ],
)
@pytest.mark.parametrize("ratio", [5, 7])
def test_a_file_is_no_larger_than_asked_and_nearly_as_large(small, tmp_path, policy, options, ratio):
    model, fisher = small
    limit = 4 * sum(p.numel() for p in model.parameters()) // ratio
    target = {"target": {"ratio": ratio, "of": "file"}}
    stored = laqfi.quantize(model, Measured(fisher), policy=policy, coding="ans", **options, **target)
    laqfi.save(stored, tmp_path / "m", "ans")
    size = (tmp_path / "m").stat().st_size
    assert limit * (0.98 if policy == "rate" else 0.9) < size <= limit
    laqfi.load(again := Small(), tmp_path / "m")
    assert again(torch.randn(1, 1, 12, 12), None).isfinite().all()


def test_a_target_in_memory_counts_the_tensors(small):
    model, fisher = small
    options = {"target": {"ratio": 5, "of": "resident"}, "rounding": "nearest"}
    stored = laqfi.quantize(model, Measured(fisher), policy="rate", **options)
    parameters = sum(p.numel() for p in model.parameters())
    assert 0.9 * 4 / 5 * parameters < sum(one.layout.bytes() for one in stored.values()) <= 4 / 5 * parameters


def test_the_same_bytes_cost_less_by_one_step_and_a_code_than_by_a_budget(small):
    model, fisher = small
    target = {"target": {"ratio": 8, "of": "file"}}
    budget = {"formats": ["int2", "int3", "int4", "int5", "int6", "int8", "float16"]}

    def change(policy: str, options: dict) -> float:
        stored = laqfi.quantize(model, Measured(fisher), policy=policy, coding="ans", **options, **target)
        return sum(float((fisher[name] * one.delta.square()).sum()) for name, one in stored.items())

    assert change("rate", {"rounding": "nearest"}) < change("budget", budget)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_of_no_importance_at_all_is_stored_as_zeros(seed):
    """However the step, which is to be larger than twice the largest weight, is rounded to float16."""
    torch.manual_seed(seed)
    t = Evidence("w", None, 0.0, torch.randn(8, 30), fisher=torch.zeros(8, 30))
    chosen = bind("rate", {"target": {"bytes": 500}, "rounding": "nearest"})([t], lambda choices: 499)
    one = chosen["w"]
    stored = t.stored(one.format, one.search, one.rounding, one.step)
    assert not stored.layout.restore(stored.parts).any()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused_with_their_name(value):
    model = nn.Linear(8, 8)
    model.weight.data[2, 3] = value
    fisher = {name: torch.rand_like(p) for name, p in model.named_parameters()}
    with pytest.raises(LaqfiError, match=r"^weight holds values that are not finite$"):
        laqfi.quantize(model, Measured(fisher), policy="rate", target={"bytes": 900}, rounding="nearest")


@pytest.mark.parametrize("of", ["file", "resident"])
def test_a_model_of_norms_alone_has_one_size(of):
    model = nn.Sequential(nn.GroupNorm(2, 400), nn.LayerNorm(300))
    fisher = {name: torch.rand_like(p) for name, p in model.named_parameters()}

    def quantized(ratio: float) -> dict:
        return laqfi.quantize(model, Measured(fisher), policy="rate", target={"ratio": ratio, "of": of}, coding="ans")

    assert {one.layout.format.name for one in quantized(1.2).values()} == {"float16"}
    with pytest.raises(BudgetTooSmallError, match="the smallest feasible is"):
        quantized(900)


def test_targets_say_what_they_count():
    assert check("rate", {"target": {"ratio": 14}}).target.of == "file"
    assert check("budget", {"target": {"ratio": 14}, "formats": ["int4"]}).target.of == "resident"
    with pytest.raises(ValueError, match="of: found 'file', allowed with format is 'resident'"):
        check("budget", {"target": {"format": "int4", "of": "file"}, "formats": ["int4"]})
