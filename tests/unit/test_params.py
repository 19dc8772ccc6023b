import copy

import pytest
import yaml
from laqfi.config import load

from laqfi.errors import LaqfiError
from tiny import ROOT, TINY, tiny_params


def write(tmp_path, params):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params))
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
        ("profiles.tiny.dataset.name", "cifar", "profiles.tiny.dataset.name: found 'cifar'"),
        ("profiles.tiny.train.steps", 0, "profiles.tiny.train.steps: found 0"),
        ("profiles.tiny.train.lr", "1e-3", "profiles.tiny.train.lr: found '1e-3'"),
        ("profiles.tiny.train.colour", 1, "profiles.tiny.train.colour: unknown key"),
        ("profiles.tiny.fisher.timesteps", [50, 1], "timesteps must increase"),
        ("profiles.tiny.fisher.timesteps", [1, 50, 101], "before timestep 101"),
        ("profiles.tiny.fisher", TINY["fisher"] | {"timesteps": [1, 50], "bins": [1, 99]}, "fisher.bins ends at 99"),
        ("profiles.tiny.fisher.bins", [1, 10, 100], "no timestep in the bin 1 < t <= 10"),
        ("profiles.tiny.evaluate.noise_timesteps", [101], "allowed is 1 to diffusion.timesteps = 100"),
        ("profiles.tiny.sample.steps", 101, "allowed is 1 to diffusion.timesteps = 100"),
        ("profiles.tiny.sample.images", 7, "at least 2 x evaluate.groups = 8"),
        ("profiles.tiny.sample.seeds", [1, 1], "seeds must differ"),
        ("profiles.tiny.sample.sampler", "euler", "profiles.tiny.sample.sampler: found 'euler'"),
        ("profiles.tiny.quantize.timestep", 2, "allowed is one of fisher.timesteps [1, 50, 100]"),
        ("profiles.tiny.unet.heads", 3, "allowed is a divisor of base_channels = 4"),
        ("profiles.tiny.unet.attention", [7], "profiles.tiny.unet.attention.0: found 7"),
        ("profiles.tiny.features", {"network": "inception"}, "sha256: Field required"),
        ("profiles.tiny.features", {"network": "vgg"}, "profiles.tiny.features"),
        ("profiles", [], "profiles: found []"),
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
    with pytest.raises(LaqfiError, match="eta belongs to the sampler ddim"):
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
