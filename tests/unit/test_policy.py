import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from laqfi.errors import LaqfiError
from laqfi.quant.policy import POLICIES, WeightTensor, bind

TENSORS = [
    WeightTensor("a1", 1, 1.0),
    WeightTensor("b1", 1, 0.5),
    WeightTensor("a2", 2, 0.4),
    WeightTensor("b2", 2, 0.2),
    WeightTensor("a3", 3, 0.10),
    WeightTensor("a4", 4, 0.05),
    WeightTensor("a5", 5, 0.02),
    WeightTensor("b5", 5, 0.01),
    WeightTensor("a6", 6, 0.30),
]

weights = st.lists(
    st.builds(WeightTensor, st.uuids().map(str), st.integers(1, 6), st.floats(0, 1)),
    min_size=1,
    max_size=40,
    unique_by=lambda t: t.name,
)


def chosen(policy, tensors=TENSORS, **options):
    return {name: choice.dtype for name, choice in bind(policy, options)(tensors).items()}


def halves(choices):
    return {name for name, dtype in choices.items() if dtype == "float16"}


def groups(*layers, threshold="mean"):
    return [{"layers": list(group), "threshold": threshold} for group in layers]


def test_fp32_quantizes_nothing_and_uniform_everything():
    assert halves(chosen("fp32")) == set()
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
    with pytest.raises(ValidationError, match="each of 1 to 6 once"):
        bind("group", {"groups": groups(*bad)})


def test_ratio_keeps_the_top_share_of_every_layer():
    one_layer = [WeightTensor(str(i), 1, i / 10) for i in range(1, 9)] + [WeightTensor("x", 2, 0.001)]
    kept = {n for n, d in chosen("ratio", one_layer, p=0.25).items() if d == "float32"}
    assert kept == {"7", "8", "x"}  # the only tensor of a layer is its top
    assert halves(chosen("ratio", one_layer, p=1.0)) == set()
    assert halves(chosen("ratio", one_layer, p=0.0)) == {t.name for t in one_layer}


def test_mean_std_cuts_each_layer_in_three():
    scores = [0.0, 0.4, 0.5, 0.6, 1.0]
    tensors = [WeightTensor(str(s), 1, s) for s in scores]
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
    tensors = [WeightTensor(str(s), 1, s) for s in scores]
    choices = bind("mean_std", {"alpha": alpha})(tensors)
    lower, upper = np.mean(scores) - k * np.std(scores), np.mean(scores) + k * np.std(scores)
    for s in scores:
        assert choices[str(s)].dtype == ("float16" if s < lower else "float32")
        assert choices[str(s)].threshold == pytest.approx(upper if s > upper else lower)


def test_mean_std_of_equal_scores_is_between():
    tensors = [WeightTensor(name, 1, 0.5) for name in "abc"]
    assert set(chosen("mean_std", tensors, alpha=1.0, between="bfloat16").values()) == {"bfloat16"}


OPTIONS = {
    "fp32": {},
    "uniform": {},
    "threshold": {"tau": 0.3},
    "group": {"groups": groups((1, 2, 3), (4, 5), (6,), threshold=0.2)},
    "ratio": {"p": 0.4},
    "mean_std": {"alpha": 1.0},
}


def test_every_policy_is_tested_here():
    assert set(OPTIONS) == set(POLICIES)


@pytest.mark.parametrize("policy", OPTIONS)
@given(tensors=weights)
def test_every_policy_decides_on_every_tensor_and_on_no_other(policy, tensors):
    assert set(chosen(policy, tensors, **OPTIONS[policy])) == {t.name for t in tensors}


@pytest.mark.parametrize("policy", ["threshold", "ratio", "mean_std"])
@given(tensors=weights)
def test_within_a_layer_a_higher_score_never_gets_less_precision(policy, tensors):
    found = chosen(policy, tensors, **OPTIONS[policy])
    for low in tensors:
        for high in tensors:
            if low.layer == high.layer and low.score <= high.score and found[low.name] == "float32":
                assert found[high.name] == "float32"


@given(tensors=weights, low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_higher_threshold_quantizes_no_less(tensors, low, high):
    low, high = sorted((low, high))
    assert halves(chosen("threshold", tensors, tau=low)) <= halves(chosen("threshold", tensors, tau=high))
    assert halves(chosen("ratio", tensors, p=high)) <= halves(chosen("ratio", tensors, p=low))


def test_an_unknown_policy_is_named_with_the_known_ones():
    with pytest.raises(LaqfiError, match=r"found 'hessian', allowed is one of \['fp32', 'group'"):
        bind("hessian", {})
