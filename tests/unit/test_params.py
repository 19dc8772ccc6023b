import copy
import json
import re

import pytest
import yaml

from laqfi.base import versions
from laqfi.base.errors import LaqfiError
from laqfi.data import datasets
from laqfi.models import families
from laqfi.params import whole
from laqfi.params.whole import load
from tiny import ROOT, TINY, VARIANTS, tiny_params


def write(tmp_path, params):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    return path


def put(params, key, value):
    *parents, last = key.split(".")
    for parent in parents:
        params = params[parent]
    params[last] = value


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, str(key)))
    else:
        yield path


def test_the_params_of_this_repository_are_valid():
    assert load(ROOT / "params.yaml").active == ["quick"]


def test_no_parameter_has_a_name_that_dvc_ignores():
    keys = {key for path in leaves(yaml.safe_load((ROOT / "params.yaml").read_text())) for key in path}
    assert not keys & {"size", "nfiles"}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("surprise", 1, "surprise: unknown key"),
        ("active", ["tyni"], "active names 'tyni', allowed is one of ['tiny']"),
        ("active", [], "active: found []"),
        ("active", ["tiny", "tiny"], "active is ['tiny', 'tiny'], allowed is each profile once"),
        ("active", "tiny", "active: found 'tiny'"),
        ("active", {"tiny": 1}, "active: found {'tiny': 1}"),
        ("active", None, "active: found None"),
        ("active", [["tiny"]], "active.0: found ['tiny']"),
        ("variants.Bad-Name", {"policy": "fp32"}, "variants.Bad-Name"),
        ("variants.fp32.policy", "uniform", "variants must hold fp32"),
        ("variants.threshold.policy", "treshold", "variants.threshold.policy: found 'treshold', allowed is one of"),
        ("variants.threshold.tau", 1.5, "variants.threshold.tau: found 1.5"),
        ("variants.threshold.tau", -0.1, "variants.threshold.tau: found -0.1"),
        ("variants.threshold.tau", "high", "variants.threshold.tau: found 'high'"),
        ("variants.threshold.tua", 0.5, "variants.threshold.tua: unknown key"),
        ("variants.threshold", {"policy": "threshold"}, "variants.threshold.tau: Field required"),
        ("variants.threshold.dtype", "float8", "variants.threshold.dtype: found 'float8'"),
        ("variants.ratio.p", 2, "variants.ratio.p: found 2"),
        (
            "profiles.tiny.dataset.name",
            "cifar",
            "profiles.tiny: dataset.name: found 'cifar', allowed is one of",
        ),
        ("profiles.tiny.train.steps", 0, "profiles.tiny.train.steps: found 0"),
        ("profiles.tiny.train.lr", "a lot", "profiles.tiny.train.lr: found 'a lot'"),
        ("profiles.tiny.fisher.images", 1438, "fisher.images is 1438, allowed are the 1437 training images of digits"),
        ("profiles.tiny.curvature.images", 1438, "curvature.images is 1438, allowed are the 1437 training images"),
        ("profiles.tiny.evaluate.noise_images", 361, "evaluate.noise_images is 361, allowed are the 360 test images"),
        ("profiles.tiny.train.colour", 1, "profiles.tiny.train.colour: unknown key"),
        ("profiles.tiny.fisher.timesteps", [50, 1], "timesteps must increase"),
        ("profiles.tiny.fisher.timesteps", [1, 50, 101], "before timestep 101"),
        ("profiles.tiny.fisher", TINY["fisher"] | {"timesteps": [1, 50], "bins": [1, 99]}, "fisher.bins ends at 99"),
        ("profiles.tiny.fisher.bins", [1, 10, 100], "no timestep in the bin 1 < t <= 10"),
        ("profiles.tiny.evaluate.noise_timesteps", [101], "allowed is 1 to the diffusion's last timestep, 100"),
        ("profiles.tiny.diffusion.beta_end", 0.002, "alphas_cumprod: ends with 0.860607, allowed is up to 0.5"),
        ("profiles.tiny.sample.steps", 101, "allowed is 1 to the diffusion's last timestep, 100"),
        ("profiles.tiny.sample.images", 7, "at least 2 x evaluate.groups = 8"),
        ("profiles.tiny.sample.seeds", [1, 1], "seeds must differ"),
        (
            "profiles.tiny.sample.sampler",
            "euler",
            "profiles.tiny: sample.sampler: found 'euler', allowed is one of",
        ),
        (
            "profiles.tiny.controls.budgets",
            [{"ratio": 10}, {"ratio": 10, "coding": "ans"}],
            "profiles.tiny.controls.budgets.1: coding: found 'ans', allowed with of: resident is none",
        ),
        ("profiles.tiny.controls.budgets", [{"ratio": 10, "of": "disk"}], "budgets.0.of: found 'disk'"),
        (
            "profiles.tiny.controls.budgets",
            [{"ratio": 10}, {"ratio": 10, "of": "file"}, {"ratio": 10, "rest": "float8_e4m3fn"}],
            "profiles.tiny.controls: budgets: found 10 twice of: resident, allowed is each ratio once",
        ),
        ("profiles.tiny.controls.precision", "bf16", "profiles.tiny.controls.precision: found 'bf16'"),
        (
            "profiles.tiny",
            TINY
            | {
                "sample": TINY["sample"] | {"precision": "tf32"},
                "controls": TINY["controls"] | {"precision": "float32"},
            },
            "controls.precision is 'float32', allowed is one of ['tf32', 'float16']",
        ),
        ("profiles.tiny.quantize.timestep", 2, "allowed is one of fisher.timesteps [1, 50, 100]"),
        ("profiles.tiny.model.heads", 3, "allowed is a divisor of base_channels = 4"),
        ("profiles.tiny.model.attention", [7], "profiles.tiny.model.unet.attention.0: found 7"),
        ("profiles.tiny.features", {"network": "inception"}, "sha256: Field required"),
        ("profiles.tiny.features", {"network": "vgg"}, "profiles.tiny.features"),
        ("profiles", [], "profiles: found []"),
        (
            "profiles.tiny.variants",
            ["fp32", "budget", "none"],
            "profiles.tiny.variants names 'none', allowed is one of",
        ),
        (
            "profiles.tiny.variants",
            ["budget"],
            "profiles.tiny.variants is ['budget'], allowed is each variant once, fp32",
        ),
        ("profiles.tiny.variants", ["fp32", "budget", "fp32"], "allowed is each variant once, fp32 among them"),
        ("profiles.tiny.variants", [], "allowed is each variant once, fp32 among them"),
        ("profiles.tiny.variants", "fp32", "profiles.tiny.variants: found 'fp32'"),
        (
            "profiles.tiny.variants",
            ["fp32", "ratio"],
            "profiles.tiny.sample.headline names 'budget', allowed is one of ['fp32', 'ratio']",
        ),
    ],
)
def test_what_is_not_allowed_is_refused_in_one_line_that_names_it(tmp_path, key, value, message):
    params = tiny_params()
    put(params, key, value)
    path = write(tmp_path, params)
    with pytest.raises(LaqfiError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_eta_belongs_to_ddim(tmp_path):
    params = tiny_params()
    params["profiles"]["tiny"]["sample"] |= {"eta": 0.5}
    assert load(write(tmp_path, params)).profiles["tiny"].sample.eta == 0.5
    params["profiles"]["tiny"]["sample"] |= {"sampler": "ddpm"}
    with pytest.raises(LaqfiError, match=r"sample\.eta: ddpm takes none; allowed is 0, or a sampler of"):
        load(write(tmp_path, params))


def test_every_missing_key_is_named(tmp_path):
    complete = tiny_params()
    for *parents, last in leaves(complete["profiles"]["tiny"]):
        params = copy.deepcopy(complete)
        block = params["profiles"]["tiny"]
        for parent in parents:
            block = block[parent]
        del block[last]
        with pytest.raises(LaqfiError) as error:
            load(write(tmp_path, params))
        assert last in str(error.value)


@pytest.mark.parametrize("text", ["", "[", "a: b: c", "\t- x", "7"])
def test_what_is_no_params_file_is_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(LaqfiError, match=r"params\.yaml: ") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LaqfiError, match=r"gone\.yaml: cannot be read"):
        load(tmp_path / "gone.yaml")


def numbers(value, place=""):
    """Every number in the blocks and where it stands."""
    if isinstance(value, dict | list):
        for key, inside in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers(inside, f"{place}.{key}".strip("."))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, value


def all_policies():
    """`tiny_params` with every option that is a number."""
    params = tiny_params()
    budget = params["variants"]["budget"]
    params["variants"] |= {
        "group": {"policy": "group", "groups": [{"layers": [1, 2, 3, 4, 5, 6], "threshold": 0.5}]},
        "mean_std": {"policy": "mean_std", "alpha": 0.5},
        "bits": {"policy": "bits", "format": "int4", "group_size": 8},
        "seeded": budget | {"importance": "random", "seed": 1, "group_size": 8},
        "bytes": budget | {"target": {"bytes": 5000}},
        "mean_bits": budget | {"target": {"mean_bits": 4.5}},
    }
    params["profiles"]["tiny"]["sample"]["eta"] = 0.5
    return params


def with_text(place, text):
    """params.yaml with the text in place of a number."""
    params = all_policies()
    put_in(params, place, "PUT")
    return yaml.safe_dump(params).replace("PUT", text)


def put_in(block, place, value):
    *blocks, last = (int(key) if key.isdigit() else key for key in place.split("."))
    for key in blocks:
        block = block[key]
    block[last] = value


@pytest.mark.parametrize("place", [place for place, _ in numbers(all_policies())])
def test_every_number_has_a_finite_range_and_one_spelling(tmp_path, place):
    load(write(tmp_path, all_policies()))
    for text in (".inf", "1e400", "1" + 30 * "0", "-" + "9" * 30, str(2**63), "010", "yes"):
        (tmp_path / "params.yaml").write_text(with_text(place, text))
        with pytest.raises(LaqfiError, match=[key for key in place.split(".") if not key.isdigit()][-1]) as error:
            load(tmp_path / "params.yaml")
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 1000


def resolved(tmp_path, params):
    return whole.resolve(load(write(tmp_path, params)), "tiny", {"numpy": "1"})


def test_resolved_settings_do_not_depend_on_how_they_are_written(tmp_path):
    plain = resolved(tmp_path, tiny_params())
    params = tiny_params()
    tiny = params["profiles"]["tiny"]
    tiny["sample"] |= {"eta": 0, "precision": "float32"}
    tiny["train"] |= {"grad_clip": 1}
    tiny["controls"] = {"images": 10, "budgets": [{"rest": "float16", "ratio": 5}]}
    params["variants"]["budget"] |= {"target": {"ratio": 5}, "seed": 0, "keep": [], "importance": "fisher"}
    params["profiles"] = {"other": tiny | {"threads": 2}, "tiny": dict(reversed(tiny.items()))}
    params["active"] = ["other"]
    again = resolved(tmp_path, params)
    assert json.dumps(again, sort_keys=True) == json.dumps(plain, sort_keys=True)
    tiny["sample"]["eta"] = -0.0
    assert str(resolved(tmp_path, params)["sample"]["eta"]) == "0.0"


def test_resolved_settings_hold_every_default_and_nothing_of_other_profiles(tmp_path):
    found = resolved(tmp_path, tiny_params())
    assert found.keys() == TINY.keys() | {"export", "order", "profile", "program", "recoveries", "variants", "versions"}
    assert found["variants"]["threshold"] == {"policy": "threshold", "tau": 0.1, "dtype": "float16"}
    sizes = {"ratio": 5.0, "bytes": None, "mean_bits": None, "format": None}
    assert found["variants"]["budget"]["target"] == sizes | {"of": "resident"}
    assert found["sample"]["eta"] == 0.0
    assert found["order"] == ["fp32", "threshold", "ratio", "budget"]
    assert found["versions"] == {"numpy": "1"}


def test_a_profile_runs_the_variants_it_names_in_the_order_of_the_blocks(tmp_path):
    params = tiny_params()
    params["profiles"]["other"] = dict(params["profiles"]["tiny"])
    params["profiles"]["tiny"]["variants"] = ["budget", "fp32"]
    found = resolved(tmp_path, params)
    assert found["order"] == list(found["variants"]) == ["fp32", "budget"]
    params["active"] = ["other", "tiny"]
    assert list(load(write(tmp_path, params)).runs()) == [
        *(f"other-{name}" for name in VARIANTS),
        "tiny-fp32",
        "tiny-budget",
    ]


@pytest.mark.parametrize("text", [None, "runs: {}", "runs: []", "other", "runs:\n  tiny-fp32: {profile: tiny}"])
def test_a_record_of_other_runs_is_refused(tmp_path, text):
    params, path = load(write(tmp_path, tiny_params())), tmp_path / "runs.yaml"
    path.write_text(yaml.safe_dump({"runs": params.runs(), "recovered": {}, "exported": {}}))
    whole.check_runs(params, path)
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(LaqfiError, match=r"runs\.yaml: lists other runs than params.yaml; `make runs` writes it"):
        whole.check_runs(params, path)


def test_the_numbers_of_images_are_those_of_the_data():
    digits = datasets.load("digits", {})
    assert datasets.IMAGES["digits"] == (len(digits["train_images"]), len(digits["test_images"]))
    assert datasets.SHAPES["digits"] == digits["train_images"].shape[1:]
    assert datasets.SHAPES.keys() == datasets.IMAGES.keys() == datasets.DATASETS.keys() - {"folder"}


@pytest.mark.parametrize(("name", "image"), [("digits", "1, 8, 8"), ("mnist", "1, 32, 32"), ("cifar10", "3, 32, 32")])
def test_a_data_set_that_the_network_cannot_take_is_refused_with_both_shapes(tmp_path, name, image, monkeypatch):
    def check_image(model, found):
        raise ValueError(f"images are {tuple(found)}, allowed is (1, 16, 16), which the network was made for")

    monkeypatch.setattr(families, "check_image", check_image)
    found = tiny_params()
    found["profiles"]["tiny"]["dataset"] = {"name": name}
    with pytest.raises(LaqfiError, match=rf"dataset\.name: {name}: images are \({image}\), allowed is \(1, 16"):
        load(write(tmp_path, found))


def renamed(tmp_path, name):
    """params.yaml in which the variant `ratio` is called `name`."""
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tiny_params()).replace("\n  ratio:\n", f"\n  {name}:\n", 1))
    assert "  ratio:\n" not in path.read_text()
    return path


@pytest.mark.parametrize("name", ["on", "yes", "no", "off", "y", "n", "inf", "nan", "e5"])
def test_a_name_that_is_text_in_yaml_is_one(tmp_path, name):
    assert name in load(renamed(tmp_path, name)).variants


@pytest.mark.parametrize(
    "name", ["8", "1.0", "null", "~", "true", "False", "''", "1e3", "[a]", "'8'", "'a '", "_a", "é"]
)
def test_a_name_that_is_no_text_is_refused(tmp_path, name):
    with pytest.raises(LaqfiError, match=r"params\.yaml: variants") as error:
        load(renamed(tmp_path, name))
    assert "\n" not in str(error.value)


def test_the_recorded_versions_are_compared_with_the_installed_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "version", {"torch": "2.12.1+cpu", "numpy": "2.4.6+mine"}.__getitem__)
    versions.check({"torch": "2.12.1"}, tmp_path)
    for package, recorded, there in (("torch", "2.12.2", "2.12.1"), ("numpy", "2.4.6", "2.4.6+mine")):
        with pytest.raises(LaqfiError, match=rf"{package} {re.escape(there)} is installed, .* says {recorded}; `make"):
            versions.check({package: recorded}, tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "numpy: 2.4", "numpy:", "numpy: ''", "- numpy", "{"])
def test_a_record_without_versions_is_refused(tmp_path, text):
    (tmp_path / "versions.yaml").write_text(text)
    with pytest.raises(LaqfiError, match=r"versions\.yaml: "):
        whole.read_versions(tmp_path / "versions.yaml")


def test_a_variant_is_for_the_models_of_the_profiles_that_run_it(tmp_path, monkeypatch):
    """A policy by layers 1 to 6 does not have to fit a profile that leaves it out."""
    params = tiny_params()
    params["variants"]["grouped"] = {
        "policy": "group",
        "groups": [{"layers": [1, 2, 3, 4, 5, 6], "threshold": "mean"}],
    }
    other = copy.deepcopy(params["profiles"]["tiny"]) | {"variants": ["fp32", "budget"]}
    other["model"]["base_channels"] = 8
    params["profiles"]["other"] = other
    names = {4: list("123456"), 8: ["first", "last"]}
    monkeypatch.setattr(families, "groups", lambda settings: names[settings.base_channels])
    assert "grouped" in load(write(tmp_path, params)).variants
    other["variants"].append("grouped")
    with pytest.raises(LaqfiError, match=r"variants\.grouped\.groups: .*allowed is each of \['first', 'last'\] once"):
        load(write(tmp_path, params))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"activations": {"bits": 9}}, "activations.bits"),
        ({"activations": {"bits": 8, "ranges": "guess"}}, "activations.ranges"),
        ({"activations": {"bits": 8, "ranges": "dynamic", "learn": 5}}, "learn is 5, allowed with ranges dynamic is 0"),
        ({"reconstruct": {"iterations": 0}}, "reconstruct.iterations"),
        ({"reconstruct": {}}, "reconstruct.iterations"),
        ({"correct": "always"}, "correct"),
        ({"recover": {}}, r"recover\.iterations"),
        ({"recover": {"iterations": 5, "learn": "bits"}}, r"recover\.learn"),
        ({"recover": {"iterations": 5, "steps": 5}}, r"recover\.steps"),
        ({"correction": "ptqd"}, "correction"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(tmp_path, recipe, message):
    params = tiny_params()
    params["variants"]["ratio"] |= recipe
    with pytest.raises(LaqfiError, match=message):
        load(write(tmp_path, params))


def test_fp32_takes_no_recipe(tmp_path):
    params = tiny_params()
    params["variants"]["fp32"]["activations"] = {"bits": 8}
    with pytest.raises(LaqfiError, match=r"variants\.fp32 holds activations, allowed is policy fp32 alone"):
        load(write(tmp_path, params))


def test_more_steps_to_calibrate_on_than_the_sampler_takes_are_refused(tmp_path):
    params = tiny_params()
    params["profiles"]["tiny"]["calibration"]["steps"] = 4
    with pytest.raises(LaqfiError, match=r"calibration\.steps is 4, allowed is 1 to sample\.steps = 3"):
        load(write(tmp_path, params))


def test_a_variant_that_weighs_by_the_image_needs_it_measured(tmp_path):
    params = tiny_params()
    params["variants"]["budget"]["weighting"] = "image"
    message = (
        r"variants\.budget\.weighting: found 'image', allowed where calibration\.weighting is 'image', which in "
        r"profiles\.tiny is 'noise'"
    )
    with pytest.raises(LaqfiError, match=message):
        load(write(tmp_path, params))
    params["profiles"]["tiny"]["calibration"]["weighting"] = "picture"
    with pytest.raises(LaqfiError, match=r"profiles\.tiny\.calibration\.weighting: .*'noise' or 'image'"):
        load(write(tmp_path, params))
    params["profiles"]["tiny"]["calibration"]["weighting"] = "image"
    assert load(write(tmp_path, params)).variants["budget"].weighting == "image"


def test_a_list_in_a_recipe_makes_variants_too(tmp_path):
    params = tiny_params()
    params["variants"]["ratio"]["activations"] = {"bits": [8, 4]}
    found = load(write(tmp_path, params)).variants
    assert (found["ratio_8"].activations.bits, found["ratio_4"].activations.bits) == (8, 4)


def test_what_is_stored_learns_in_a_stage_of_its_own(tmp_path):
    """So that a change of `recover` does not quantize again, and a variant without it has no further job."""
    params = tiny_params()
    plain = whole.resolve(load(write(tmp_path, params)), "tiny", {"numpy": "1"})
    params["variants"]["budget"]["recover"] = {"iterations": 5, "learn": ["norms", "scales"]}
    found = load(write(tmp_path, params))
    resolved = whole.resolve(found, "tiny", {"numpy": "1"})
    assert {name: one["learn"] for name, one in resolved["recoveries"].items()} == {
        "budget_norms": "norms",
        "budget_scales": "scales",
    }
    assert resolved["variants"]["budget_norms"] == plain["variants"]["budget"]
    stored = {run["variant"]: run["stored"] for run in found.runs().values()}
    assert {name for name, stage in stored.items() if stage == "recover"} == {"budget_norms", "budget_scales"}


def test_fp32_does_not_recover(tmp_path):
    params = tiny_params()
    params["variants"]["fp32"]["recover"] = {"iterations": 5}
    with pytest.raises(LaqfiError, match=r"variants\.fp32 holds recover, allowed is policy fp32 alone"):
        load(write(tmp_path, params))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"policy": "fp32"}, r"recover: found one, allowed is none: the policy fp32 leaves nothing to recover"),
        ({"policy": "uniform"}, r"recover\.learn: found 'codes', allowed is 'norms': the policy uniform has no"),
        ({"policy": "threshold", "tau": 0.1}, r"recover\.learn: found 'codes', allowed is 'norms'"),
        ({"policy": "ratio", "p": 0.1}, r"recover\.learn: found 'codes', allowed is 'norms'"),
        ({"policy": "mean_std", "alpha": 0.5}, r"recover\.learn: found 'codes', allowed is 'norms'"),
        (
            {"policy": "budget", "target": {"ratio": 1.9}, "formats": ["float16", "float8_e4m3fn"]},
            r"recover\.learn: found 'codes', allowed is 'norms': the policy budget has no integer formats here",
        ),
    ],
)
def test_a_variant_with_nothing_to_recover_is_refused_before_it_is_trained(tmp_path, block, message):
    params = tiny_params()
    params["variants"]["x"] = block | {"recover": {"iterations": 5}}
    with pytest.raises(LaqfiError, match=rf"variants\.x\.{message}"):
        load(write(tmp_path, params))
    params["variants"]["x"]["recover"]["learn"] = "norms"
    if block["policy"] != "fp32":
        assert load(write(tmp_path, params)).variants["x"].recover.learn == "norms"


def test_a_variant_may_be_for_some_profiles_alone(tmp_path):
    params = tiny_params()
    params["profiles"] |= {"other": copy.deepcopy(TINY), "few": copy.deepcopy(TINY) | {"variants": ["fp32"]}}
    params["profiles"]["few"]["sample"].pop("headline")
    params["variants"]["ratio"]["profiles"] = ["other", "few"]
    found = load(write(tmp_path, params))
    assert found.variants_of("tiny") == ["fp32", "threshold", "budget"]
    assert found.variants_of("other") == ["fp32", "threshold", "ratio", "budget"]
    assert found.variants_of("few") == ["fp32", "ratio"]
    assert "profiles" not in whole.resolve(found, "other", {"numpy": "1"})["variants"]["ratio"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ratio", r"variants\.ratio\.profiles names 'none_such', allowed is one of \['tiny'\]"),
        ("fp32", "allowed is none"),
    ],
)
def test_a_variant_for_no_profile_that_exists_is_refused(tmp_path, name, message):
    params = tiny_params()
    params["variants"][name]["profiles"] = ["none_such"] if name == "ratio" else ["tiny"]
    with pytest.raises(LaqfiError, match=message):
        load(write(tmp_path, params))
