"""A block with a list of values is the variants it stands for, written out."""

import json

import pytest
import yaml

from laqfi.base.errors import LaqfiError
from laqfi.params import sweeps, whole
from laqfi.quant.policies.registry import POLICIES
from tiny import VARIANTS, tiny_params


def load(tmp_path, more, **profile):
    """tiny's params.yaml with `more` variants than its own, and other keys of the profile."""
    params = tiny_params()
    params["variants"] |= more
    params["profiles"]["tiny"] |= profile
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    return whole.load(path)


def settings(params):
    return json.dumps(whole.resolve(params, "tiny", {"numpy": "1"}))


def budget(**options):
    return VARIANTS["budget"] | options


@pytest.mark.parametrize(
    ("block", "written_out"),
    [
        (
            budget(target={"ratio": [6, 6.2, 10.0, 1e2]}),
            {name: budget(target={"ratio": float(name.replace("_", "."))}) for name in ("6", "6_2", "10", "100")},
        ),
        (budget(target={"bytes": [40000]}), {"40000": budget(target={"bytes": 40000})}),
        (budget(target={"mean_bits": [4.5]}), {"4_5": budget(target={"mean_bits": 4.5})}),
        (budget(seed=[0, 1]), {"0": budget(seed=0), "1": budget(seed=1)}),
        (budget(symmetric=[True, False]), {"true": budget(symmetric=True), "false": budget(symmetric=False)}),
        (budget(rounding=["nearest"]), {"nearest": budget(rounding="nearest")}),
        (
            {"policy": "ratio", "p": [0.5, 1e-05]},
            {"0_5": {"policy": "ratio", "p": 0.5}, "0_00001": {"policy": "ratio", "p": 0.00001}},
        ),
    ],
)
def test_a_sweep_is_its_variants_written_out(tmp_path, block, written_out):
    """In the same place among the other blocks."""
    more = {"last": {"policy": "uniform"}}
    swept = settings(load(tmp_path, {"some": block} | more))
    assert swept == settings(load(tmp_path, {f"some_{name}": one for name, one in written_out.items()} | more))


def test_lists_of_variants_name_the_block_or_one_of_its_variants(tmp_path):
    ratios = {"some": {"policy": "ratio", "p": [0.1, 0.2]}}
    sample = tiny_params()["profiles"]["tiny"]["sample"]
    for names, meant in ((["some", "fp32"], ["some_0_1", "some_0_2", "fp32"]), (["fp32", "some_0_2"],) * 2):
        sample["headline"]["ancestral"]["variants"] = names
        found = load(tmp_path, ratios, variants=names, sample=sample).profiles["tiny"]
        assert found.variants == found.sample.headline["ancestral"].variants == meant
    with pytest.raises(LaqfiError, match=r"profiles\.tiny\.variants is .*'some_0_1'\], allowed is each variant once"):
        load(tmp_path, ratios, variants=["fp32", "some", "some_0_1"], sample=sample)


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"some": budget(target={"ratio": []})}, "variants.some.target.ratio: found [], allowed is a value, or a list"),
        (
            {"some": budget(seed=[1, 2, 1])},
            "variants.some.seed: found [1, 2, 1], 'some_1' twice, allowed is each value",
        ),
        ({"some": budget(target={"ratio": [6, 6.0]})}, "variants.some.target.ratio: found [6, 6.0], 'some_6' twice"),
        (
            {"some": budget(seed=[1, -1])},
            "variants.some.seed: found -1 in a list of values, allowed are numbers from 0",
        ),
        ({"some": budget(seed=[None])}, "variants.some.seed: found None in a list of values, allowed are"),
        ({"some": budget(seed=[[1]])}, "variants.some.seed: found [1] in a list of values, allowed are"),
        ({"some": budget(target=[{"ratio": 6}])}, "variants.some.target: found {'ratio': 6} in a list of values"),
        ({"some": budget(rounding=["to nearest"])}, "variants.some.rounding: found 'to nearest' in a list of values"),
        ({"some": budget(target={"ratio": [float("inf")]})}, "variants.some.target.ratio: found"),
        ({"some": budget(target={"ratio": [6, "x"]})}, "variants.some_x.target.ratio: found 'x'. Input should be a"),
        ({"some": budget(target={"ratio": [6, 0.5]})}, "variants.some_0_5.target.ratio: found 0.5. Input should be"),
        (
            {"some": budget(target={"ratio": [6]}, seed=[1])},
            "variants.some.target.ratio: found a list, and one in variants.some.seed, allowed is one list of values",
        ),
        (
            {"some": budget(seed=[1]), "some_1": {"policy": "uniform"}},
            "variants.some: its list makes 'some_1', allowed is a name no other variant has",
        ),
        ({"some_1": budget(seed=[2]), "some": budget(seed=["1_2"])}, "variants.some: its list makes 'some_1_2'"),
        ({"some_1": budget(seed=[2]), "some": budget(seed=[1])}, "variants.some: its list makes 'some_1'"),
        ({"some": budget(seeds=[1])}, "variants.some.seeds: unknown key"),
        ({"some": budget(target={"rato": [1]})}, "variants.some.target.rato: unknown key"),
        ({"some": {"policy": ["ratio", "uniform"]}}, "variants.some.policy: found ['ratio', 'uniform']"),
        ({"some": {"policy": "ratoi", "p": [0.1]}}, "variants.some.policy: found 'ratoi', allowed is one of"),
    ],
)
def test_what_is_no_sweep_is_refused_in_one_line(tmp_path, variants, message):
    with pytest.raises(LaqfiError) as error:
        load(tmp_path, variants)
    assert str(error.value).startswith(f"{tmp_path / 'params.yaml'}: {message}")
    assert "\n" not in str(error.value)


def test_an_option_that_may_be_a_list_is_not_swept(tmp_path, monkeypatch):
    """Whichever way its annotation says so; in a list of blocks nothing is."""
    groups = [{"layers": [1, 2], "threshold": 0.5}, {"layers": [3, 4, 5, 6], "threshold": "mean"}]
    found = load(tmp_path, {"some": budget(keep=[]), "other": {"policy": "group", "groups": groups}})
    assert list(found.variants) == [*VARIANTS, "some", "other"]

    def own(tensors, *, one: int | list[int] = 1, pair: tuple[int, int] = (1, 2), anything: object = None):
        return {}

    monkeypatch.setitem(POLICIES, "own", own)
    block = {"policy": "own", "one": [1, 2], "pair": [3, 4], "anything": [5]}
    assert sweeps.variants_of("some", block) == {"some": block}


@pytest.mark.parametrize("params", [None, [], {}, {"variants": []}, {"variants": {"a": 1}, "profiles": {"b": []}}])
def test_what_is_no_params_file_is_left_to_others(params):
    assert sweeps.expanded(params) == params
