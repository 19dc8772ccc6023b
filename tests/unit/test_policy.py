import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from laqfi.base.errors import LaqfiError
from laqfi.quant.apply import store_all, stored_size
from laqfi.quant.choice import Choice
from laqfi.quant.evidence import Evidence
from laqfi.quant.policies.every import bind, check
from laqfi.quant.policies.registry import POLICIES
from laqfi.sensitivity.compensation import Compensation
from laqfi.storage.formats import Format
from stored import quantize

TENSORS = [
    Evidence("a1", "1", 1.0),
    Evidence("b1", "1", 0.5),
    Evidence("a2", "2", 0.4),
    Evidence("b2", "2", 0.2),
    Evidence("a3", "3", 0.10),
    Evidence("a4", "4", 0.05),
    Evidence("a5", "5", 0.02),
    Evidence("b5", "5", 0.01),
    Evidence("a6", "6", 0.30),
]
OUTSIDE = Evidence("outside", None, 0.0)

steady = settings(deadline=None, derandomize=True, max_examples=40)
weights = st.lists(
    st.builds(Evidence, st.uuids().map(str), st.sampled_from("123456"), st.floats(0, 1)),
    min_size=1,
    max_size=40,
    unique_by=lambda t: t.name,
)


def chosen(policy, tensors=TENSORS, **options):
    return {name: choice.format.name for name, choice in bind(policy, options)(tensors).items()}


def halves(choices):
    return {name for name, dtype in choices.items() if dtype == "float16"}


def groups(*layers, threshold="mean"):
    return [{"layers": list(group), "threshold": threshold} for group in layers]


def test_fp32_quantizes_nothing_and_uniform_everything():
    assert chosen("fp32") == {}
    assert halves(chosen("uniform")) == {t.name for t in TENSORS}
    assert set(chosen("uniform", dtype="bfloat16").values()) == {"bfloat16"}


def test_threshold_takes_the_tensors_strictly_below():
    assert halves(chosen("threshold", tau=0.1)) == {"a4", "a5", "b5"}
    assert halves(chosen("threshold", tau=0)) == set()
    assert halves(chosen("threshold", tau=1)) == {t.name for t in TENSORS} - {"a1"}


def test_group_compares_with_the_mean_score_of_its_own_tensors():
    # Means: {1,2}: 0.525, {3,4,5}: 0.045, {6}: 0.3.
    found = chosen("group", groups=groups((1, 2), (3, 4, 5), (6,)))
    assert halves(found) == {"b1", "a2", "b2", "a5", "b5"}


def test_group_takes_given_thresholds():
    given_groups = [{"layers": [1, 2], "threshold": 0.3}, {"layers": [3, 4, 5, 6], "threshold": 0.02}]
    assert halves(chosen("group", groups=given_groups)) == {"b2", "b5"}


@pytest.mark.parametrize("bad", [[(1, 2), (3, 4, 5)], [(1, 2, 3, 4, 5, 6), (6,)], []])
def test_groups_must_hold_every_layer_once(bad):
    with pytest.raises(ValidationError, match="once"):
        check("group", {"groups": groups(*bad)}, list("123456"))


def test_a_layer_of_the_model_that_is_in_no_group_is_refused():
    with pytest.raises(LaqfiError, match=r"groups: hold the layers .*'5'\], and the model has '6' too"):
        chosen("group", groups=groups((1, 2), (3, 4, 5)))


def test_layers_may_be_written_as_numbers_or_as_names():
    as_names = [one | {"layers": [str(layer) for layer in one["layers"]]} for one in groups((1, 2), (3, 4, 5), (6,))]
    assert chosen("group", groups=as_names) == chosen("group", groups=groups((1, 2), (3, 4, 5), (6,)))


def test_ratio_keeps_the_top_share_of_every_layer():
    one_layer = [Evidence(str(i), "1", i / 10) for i in range(1, 9)] + [Evidence("x", "2", 0.001)]
    kept = {n for n, d in chosen("ratio", one_layer, p=0.25).items() if d == "float32"}
    assert kept == {"7", "8", "x"}  # the only tensor of a layer is its top
    assert halves(chosen("ratio", one_layer, p=1.0)) == set()
    assert halves(chosen("ratio", one_layer, p=0.0)) == {t.name for t in one_layer}


def test_mean_std_cuts_each_layer_in_three():
    scores = [0.0, 0.4, 0.5, 0.6, 1.0]
    tensors = [Evidence(str(s), "1", s) for s in scores]
    mean, std = np.mean(scores), np.std(scores)
    k = 0.5 * mean / std
    assert 0.1 < k < 2
    found = chosen("mean_std", tensors, alpha=0.5, below="float16", between="float32", above="bfloat16")
    for s in scores:
        expected = "float16" if s < mean - k * std else "bfloat16" if s > mean + k * std else "float32"
        assert found[str(s)] == expected
    assert set(found.values()) == {"float16", "float32", "bfloat16"}


@pytest.mark.parametrize(("alpha", "k"), [(1e-6, 0.1), (1e6, 2.0)])
def test_mean_std_clamps_k(alpha, k):
    scores = [0.1, 0.2, 0.3, 0.9]
    tensors = [Evidence(str(s), "1", s) for s in scores]
    choices = bind("mean_std", {"alpha": alpha})(tensors)
    lower, upper = np.mean(scores) - k * np.std(scores), np.mean(scores) + k * np.std(scores)
    for s in scores:
        assert choices[str(s)].format.name == ("float16" if s < lower else "float32")
        assert choices[str(s)].threshold == pytest.approx(upper if s > upper else lower)


@pytest.mark.parametrize("alpha", [float("inf"), float("nan"), 0.0, -1.0])
def test_mean_std_takes_a_finite_number_above_zero(alpha):
    with pytest.raises(ValidationError):
        bind("mean_std", {"alpha": alpha})


def test_mean_std_of_equal_scores_is_between():
    tensors = [Evidence(name, "1", 0.5) for name in "abc"]
    assert set(chosen("mean_std", tensors, alpha=1.0, between="bfloat16").values()) == {"bfloat16"}


SEED = {
    "fp32": {},
    "uniform": {},
    "threshold": {"tau": 0.3},
    "group": {"groups": groups((1, 2, 3), (4, 5), (6,), threshold=0.2)},
    "ratio": {"p": 0.4},
    "mean_std": {"alpha": 1.0},
}
BITS = {
    "bits": {"format": "int4"},
    "budget": {"target": {"ratio": 6}, "formats": ["int2", "int3", "int4", "int6", "int8"]},
}


def test_every_policy_is_tested():
    in_test_rate = {"rate"}
    assert set(SEED | BITS) | in_test_rate == set(POLICIES)


@pytest.mark.parametrize("policy", sorted(SEED.keys() - {"fp32"}))
@steady
@given(tensors=weights)
def test_the_policies_of_the_report_decide_on_every_tensor_of_the_layers_and_on_no_other(policy, tensors):
    assert set(chosen(policy, [*tensors, OUTSIDE], **SEED[policy])) == {t.name for t in tensors}


@pytest.mark.parametrize("policy", SEED)
@steady
@given(tensors=weights)
def test_tensors_outside_the_layers_do_not_change_the_others(policy, tensors):
    assert chosen(policy, [OUTSIDE, *tensors], **SEED[policy]) == chosen(policy, tensors, **SEED[policy])


@pytest.mark.parametrize("policy", ["threshold", "ratio", "mean_std"])
@steady
@given(tensors=weights)
def test_within_a_layer_a_higher_score_never_gets_less_precision(policy, tensors):
    found = chosen(policy, tensors, **SEED[policy])
    for low in tensors:
        for high in tensors:
            if low.group == high.group and low.score <= high.score and found[low.name] == "float32":
                assert found[high.name] == "float32"


@steady
@given(tensors=weights, low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_higher_threshold_quantizes_no_less(tensors, low, high):
    low, high = sorted((low, high))
    assert halves(chosen("threshold", tensors, tau=low)) <= halves(chosen("threshold", tensors, tau=high))
    assert halves(chosen("ratio", tensors, p=high)) <= halves(chosen("ratio", tensors, p=low))


def test_an_unknown_policy_is_named_with_the_known_ones():
    with pytest.raises(LaqfiError, match=r"found 'hessian', allowed is one of \['bits', 'budget', 'fp32', 'group'"):
        bind("hessian", {})


def weight_tensor(name, shape, level, axis=0, seed=0):
    """Weights whose Fisher is around `level`, unlike for every weight, and as a whole for every timestep weighting."""
    random = torch.Generator().manual_seed(seed)
    weight = 0.1 * torch.randn(shape, generator=random)
    fisher = level * (2 * torch.randn(shape, generator=random)).exp()
    counts = {"last": 0.1 * (seed + 1), "uniform": 1.0, "sampler": 8.0 / (seed + 1)}
    compensation = Compensation.of(torch.eye(weight.numel() // weight.shape[axis])) if weight.dim() > 1 else None
    return Evidence(name, None, 0.0, weight, axis, fisher, counts, lambda: compensation)


def network():
    """Tensors whose importance does not follow their size, magnitude or order."""
    return [
        weight_tensor("in", (8, 2, 3, 3), 3.0, seed=1),
        weight_tensor("norm", (8,), 1e-2, seed=2),
        weight_tensor("middle", (16, 8, 3, 3), 1e-3, seed=3),
        weight_tensor("linear", (12, 16), 0.3, seed=4),
        weight_tensor("up", (16, 4, 4, 4), 1e-5, axis=1, seed=5),
        weight_tensor("out", (2, 4, 3, 3), 10.0, seed=6),
        weight_tensor("bias", (2,), 5.0, seed=7),
    ]


PARAMETERS = sum(t.weight.numel() for t in network())
NAMES = {t.name for t in network()}
VECTORS = {"norm", "bias"}


def choices_of(policy, tensors=None, **options):
    return bind(policy, BITS[policy] | options)(tensors or network())


def size_of(choices, tensors=None):
    return sum(t.layout(choices[t.name].format).bytes() for t in tensors or network())


def error_in(t, choice, weighting="sampler"):
    """The predicted change of the output by one tensor's choice."""
    _, restored = quantize(t.weight, t.layout(choice.format), choice.search, t.fisher)
    return t.counts[weighting] * (t.fisher * (restored - t.weight).square()).sum().item()


def error_of(choices, weighting="sampler"):
    return sum(error_in(t, choices[t.name], weighting) for t in network())


def names_of(choices):
    return {name: choice.format.name for name, choice in choices.items()}


def test_bits_stores_every_matrix_in_one_format_and_the_rest_in_another():
    choices = choices_of("bits", format="int3", symmetric=False, group_size=8, search="fisher", rest="bfloat16")
    assert choices.keys() == NAMES
    for name, choice in choices.items():
        assert choice.format == (Format("bfloat16") if name in VECTORS else Format("int3", False, 8))
        assert choice.search == "fisher"


def test_bits_does_not_look_at_the_fisher_information():
    blind = [Evidence(t.name, t.group, t.score, t.weight, t.axis) for t in network()]
    assert choices_of("bits", blind) == choices_of("bits")


@pytest.mark.parametrize(
    "bad",
    [
        {"format": "int9"},
        {"format": "float16"},
        {"format": "int4", "group_size": -2},
        {"format": "int4", "search": "best"},
        {"format": "int4", "rest": "int8"},
        {"format": "int4", "surprise": 1},
        {},
    ],
    ids=str,
)
def test_bits_refuses_options_that_do_not_fit(bad):
    with pytest.raises(ValidationError):
        bind("bits", bad)


def test_a_budget_may_be_given_as_bytes_as_a_ratio_or_as_mean_bits():
    limit = PARAMETERS * 5 // 8
    assert PARAMETERS % 8 == 2  # so that nothing comes out even by chance
    expected = choices_of("budget", target={"bytes": limit})
    assert choices_of("budget", target={"mean_bits": 5.0}) == expected
    assert choices_of("budget", target={"ratio": 32 / 5}) == expected


@pytest.mark.parametrize("options", [{}, {"symmetric": False}, {"group_size": 8}, {"rest": "bfloat16"}], ids=str)
def test_a_budget_may_be_the_bytes_of_one_format_for_all(options):
    alike = choices_of("bits", format="int4", **options)
    found = choices_of("budget", target={"format": "int4"}, **options)
    assert found == choices_of("budget", target={"bytes": size_of(alike)}, **options)
    assert size_of(found) <= size_of(alike)


@pytest.mark.parametrize(
    "target", [{}, {"bytes": 4000, "ratio": 4.0}, {"bytes": 4000, "ratio": 4.0, "mean_bits": 4.0}], ids=str
)
def test_a_budget_takes_exactly_one_target(target):
    with pytest.raises(ValidationError, match="allowed is exactly one of bytes, ratio, mean_bits, format"):
        bind("budget", {"target": target, "formats": ["int4"]})


@pytest.mark.parametrize(
    "bad",
    [
        {"target": {"bytes": 0}},
        {"target": {"ratio": 1.0}},
        {"target": {"mean_bits": 32.0}},
        {"target": {"mean_bits": float("nan")}},
        {"target": {"ratio": float("inf")}},
        {"group_size": 10**9},
        {"formats": []},
        {"formats": ["int1"]},
        {"importance": "hessian"},
        {"weighting": "first"},
    ],
    ids=str,
)
def test_budget_refuses_options_that_do_not_fit(bad):
    with pytest.raises(ValidationError):
        bind("budget", BITS["budget"] | bad)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("mean_bits", [3.0, 5.0, 6.5])
def test_a_budget_is_kept_and_no_single_change_within_it_would_help(mean_bits, symmetric):
    choices = choices_of("budget", target={"mean_bits": mean_bits}, symmetric=symmetric)
    left = PARAMETERS * mean_bits / 8 - size_of(choices)
    assert choices.keys() == NAMES
    assert left >= 0
    for t in network():
        layout, error = t.layout(choices[t.name].format), error_in(t, choices[t.name])
        for other in BITS["budget"]["formats"] if t.name not in VECTORS else []:
            changed = Choice(Format(other, symmetric), search="fisher")
            larger = t.layout(changed.format).bytes() - layout.bytes()
            assert larger > left or error_in(t, changed) >= error * (1 - 1e-6)


def test_a_budget_is_nearly_used():
    options = {"formats": [f"int{bits}" for bits in range(2, 9)]}
    for mean_bits in (4.0, 6.0):
        limit = PARAMETERS * mean_bits / 8
        assert 0.97 * limit < size_of(choices_of("budget", target={"mean_bits": mean_bits}, **options)) <= limit


def test_bits_go_to_the_tensors_the_output_depends_on():
    bits = {name: choice.format.bits for name, choice in choices_of("budget", target={"mean_bits": 4.5}).items()}
    assert bits["out"] >= bits["in"] > bits["middle"] >= bits["up"]


def test_a_larger_budget_never_has_a_larger_error():
    errors = [error_of(choices_of("budget", target={"mean_bits": m})) for m in (3.0, 4.0, 6.0, 8.0)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("weighting", ["last", "uniform", "sampler"])
@pytest.mark.parametrize("control", ["none", "magnitude", "inverse", "random"])
def test_fisher_importance_predicts_no_more_error_than_a_control_of_equal_bytes(control, weighting):
    target = {"mean_bits": 4.5}
    by_fisher, by_control = (
        choices_of("budget", target=target, importance=kind, weighting=weighting) for kind in ("fisher", control)
    )
    assert error_of(by_fisher, weighting) <= error_of(by_control, weighting) * (1 + 1e-6)


def test_inverse_importance_is_worse_than_fisher():
    by_fisher, inverse = (choices_of("budget", importance=kind) for kind in ("fisher", "inverse"))
    assert error_of(by_fisher) < 0.1 * error_of(inverse)


def test_random_importance_depends_on_its_seed_alone():
    drawn = []
    for seed in range(3):
        torch.manual_seed(seed)
        first = names_of(choices_of("budget", importance="random", seed=seed))
        torch.manual_seed(99)
        assert names_of(choices_of("budget", importance="random", seed=seed)) == first
        drawn.append(tuple(sorted(first.items())))
    assert len(set(drawn)) > 1


def test_kept_tensors_stay_in_float32_and_vectors_get_the_rest():
    keep = ["out", "norm"]
    found = names_of(choices_of("budget", keep=keep, rest="bfloat16", target={"mean_bits": 6.0}))
    assert {name for name, format in found.items() if format == "float32"} == set(keep)
    assert found["bias"] == "bfloat16"
    assert all(found[name].startswith("int") for name in NAMES - VECTORS - set(keep))


def test_an_unknown_tensor_to_keep_is_named():
    with pytest.raises(LaqfiError, match="the model has no tensor 'conv_inn'"):
        choices_of("budget", keep=["out", "conv_inn"])


def test_a_budget_too_small_names_the_smallest_that_is_not():
    smallest = size_of(choices_of("bits", format="int2"))
    assert set(names_of(choices_of("budget", target={"bytes": smallest})).values()) == {"int2", "float16"}
    with pytest.raises(LaqfiError, match=rf"{smallest - 1} bytes is too small, the smallest feasible is {smallest}"):
        choices_of("budget", target={"bytes": smallest - 1})


def test_a_budget_may_choose_among_float_formats_too():
    found = names_of(choices_of("budget", formats=["int2", "float8_e4m3fn", "float16"], target={"mean_bits": 7.0}))
    assert {found[name] for name in NAMES - VECTORS} == {"int2", "float8_e4m3fn", "float16"}


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
@pytest.mark.parametrize("importance", ["fisher", "none", "magnitude", "inverse", "random", "uniform"])
@pytest.mark.parametrize(
    "formats",
    [
        ["int4", "int8", "float32"],
        ["int2", "int3", "int4", "int5", "int6", "int8", "float16", "float32"],
        ["float32", "int4"],
        ["int4", "int4"],
        ["float32", "float16", "bfloat16", "float8_e4m3fn"],
        ["float32"],
    ],
    ids="-".join,
)
def test_any_list_of_formats_is_stored_or_refused_in_one_line(formats, importance, rounding):
    """Float32 has no error at all, so that every tensor may have an option without cost."""
    integers = [format for format in formats if format.startswith("int")]
    options = {"formats": formats, "importance": importance, "rounding": rounding}
    for mean_bits in (5.0, 31.9):
        if not integers and (importance == "uniform" or mean_bits < 8):
            with pytest.raises(LaqfiError, match=r"bytes is too small|'uniform' and no integer format") as error:
                choices_of("budget", **options, target={"mean_bits": mean_bits})
            assert "\n" not in str(error.value)
        elif integers or "bfloat16" in formats:
            choices = choices_of("budget", **options, target={"mean_bits": mean_bits})
            assert set(names_of(choices).values()) <= {*formats, "float16"}
            stored = store_all(network(), choices)
            assert stored_size(stored) <= PARAMETERS * mean_bits / 8


def test_with_room_enough_every_tensor_is_stored_without_error():
    found = names_of(choices_of("budget", formats=["int4", "float32"], target={"bytes": 10**9}))
    assert {found[name] for name in NAMES - VECTORS} == {"float32"}


def test_one_format_for_all_needs_an_integer_format_to_choose():
    with pytest.raises(LaqfiError, match="'uniform' and no integer format in formats, allowed is at least one"):
        choices_of("budget", importance="uniform", formats=["float16", "float32"])


def test_an_error_too_large_for_a_number_is_refused_with_the_tensors_name():
    large = Evidence("large", None, 0.0, torch.tensor([[1e30, 1e29]]), 0, torch.ones(1, 2))
    with pytest.raises(
        LaqfiError, match=r"^large: the error predicted for bfloat16 is inf, allowed is a finite number$"
    ):
        choices_of("budget", [large], formats=["bfloat16", "float32"])


def test_importance_of_the_controls_is_what_their_name_says():
    # Two tensors of equal size; the second has 100 times the Fisher and half the weights' magnitude.
    first, second = weight_tensor("first", (16, 16), 1.0, seed=1), weight_tensor("second", (16, 16), 100.0, seed=1)
    second = Evidence("second", None, 0.0, first.weight / 2, 0, second.fisher)
    options = {"formats": ["int2", "int8"], "search": "mse", "target": {"mean_bits": 6.5}}
    wider = {
        kind: max(
            c := choices_of("budget", [first, second], importance=kind, **options), key=lambda n: c[n].format.bits
        )
        for kind in ("fisher", "none", "magnitude", "inverse")
    }
    assert wider == {"fisher": "second", "none": "first", "magnitude": "first", "inverse": "first"}


def test_kernel_positions_without_fisher_information_are_not_stored():
    t = weight_tensor("conv", (4, 3, 3, 3), 1.0)
    t.fisher.flatten(2)[:, :, [0, 2, 6, 8]] = 0
    assert t.layout(Format("int4")).taps == (1, 3, 4, 5, 7)
    assert t.layout(Format("float16")).taps is None


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (4, 3), (4,), (4, 3, 1, 1)])
def test_all_kernel_positions_are_stored_where_all_move_the_output_or_none(shape):
    t = weight_tensor("w", shape, 1.0)
    assert t.layout(Format("int4")).taps is None
    still = Evidence("w", None, 0.0, t.weight, 0, torch.zeros(shape))
    assert still.layout(Format("int4")).taps is None
