"""Models of one's own with layers of every kind: what runs from the file is what the stored weights compute."""

import copy
import gc
import pickle
import warnings
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm

import laqfi
from diffusers_folder import small_unet
from laqfi.api import Measured
from laqfi.base.errors import LaqfiError
from laqfi.storage.kinds import CALLS
from laqfi.storage.modules import StoredLayer, restored
from laqfi.storage.stored_file import read_stored


class Wrapped(nn.Module):
    """One layer, or several, called as model(x, timestep) on x of any shape."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x, timestep=None):
        return self.layers(x)


def ones(model):
    return {name: torch.ones_like(parameter) for name, parameter in model.named_parameters()}


def with_deltas(model, stored):
    """An ordinary model with the weights that are stored."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.add_(stored[name].delta.to(parameter.dtype))
    return made


def reloaded(model, tmp_path, make=None, **options):
    """The model with the stored weights, and another one on the file: of fresh weights, as a caller makes it."""
    stored = laqfi.quantize(
        model, Measured(ones(model)), policy="bits", **({"format": "int5", "rest": "float32"} | options)
    )
    laqfi.save(stored, tmp_path / "own.safetensors")
    packed = copy.deepcopy(model) if make is None else make()
    with torch.no_grad():
        for parameter in packed.parameters():
            parameter.normal_()
    laqfi.load(packed, tmp_path / "own.safetensors")
    return with_deltas(model, stored), packed


X1, X2, X3 = torch.randn(2, 4, 9), torch.randn(2, 4, 7, 6), torch.randn(2, 4, 5, 6, 4)
LAYERS = {
    **{
        f"{mode} {dims}d": (lambda kind=kind, mode=mode: kind(4, 6, 3, padding=2, padding_mode=mode), x)
        for mode in ("zeros", "circular", "reflect", "replicate")
        for dims, kind, x in ((1, nn.Conv1d, X1), (2, nn.Conv2d, X2), (3, nn.Conv3d, X3))
    },
    "circular, uneven": (lambda: nn.Conv2d(4, 6, (3, 2), padding=(2, 1), stride=2, padding_mode="circular"), X2),
    "reflect same": (lambda: nn.Conv2d(4, 6, (3, 4), padding="same", padding_mode="reflect"), X2),
    "valid": (lambda: nn.Conv2d(4, 4, 3, padding="valid", groups=4), X2),
    "same 1d": (lambda: nn.Conv1d(4, 6, 4, padding="same", dilation=2), X1),
    "transposed 1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1, dilation=2, groups=2), X1),
    "transposed 2d": (lambda: nn.ConvTranspose2d(4, 6, (3, 2), stride=2, output_padding=(1, 0), dilation=2), X2),
    "transposed grouped": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), X2),
    "transposed 3d": (lambda: nn.ConvTranspose3d(4, 2, 2, stride=2, padding=1), X3),
    "embedding": (lambda: nn.Embedding(7, 5, padding_idx=2), torch.tensor([[1, 2], [6, 0]])),
    "layer norm": (lambda: nn.LayerNorm((7, 6), bias=False), X2),
    "rms norm": (lambda: nn.RMSNorm(6), X2),
    "batch norm 1d": (lambda: nn.BatchNorm1d(4), X1),
    "batch norm 2d": (lambda: nn.BatchNorm2d(4, eps=0.1), X2),
    "batch norm 3d": (lambda: nn.BatchNorm3d(4), X3),
}


@torch.no_grad()
@pytest.mark.parametrize(("make", "x"), LAYERS.values(), ids=LAYERS)
def test_a_layer_of_any_kind_runs_packed_as_with_the_stored_weights(make, x, tmp_path):
    torch.manual_seed(0)
    model = Wrapped(make()).eval()
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2)
    plain, packed = reloaded(model, tmp_path)
    assert isinstance(packed.layers[0], StoredLayer)
    assert torch.equal(packed(x), plain(x))
    assert torch.equal(restored(packed, torch.float32)(x), plain(x))
    assert torch.equal(pickle.loads(pickle.dumps(packed))(x), plain(x))
    assert torch.equal(copy.deepcopy(packed)(x), plain(x))


def test_every_kind_that_can_be_stored_is_tried():
    tried = {type(make()) for make, _ in LAYERS.values()}
    assert tried == set(CALLS) - {nn.Linear, nn.GroupNorm}  # which test_layers tries


class Sized(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1)

    def forward(self, x, timestep=None):
        return self.up(x, output_size=[2 * side for side in x.shape[2:]])


@torch.no_grad()
def test_a_transposed_convolution_is_told_its_output_size(tmp_path):
    plain, packed = reloaded(Sized(), tmp_path)
    assert torch.equal(packed(X2), plain(X2))


class Named(nn.Module):
    """Layers that get their input by its name, which is another one for `RMSNorm`."""

    def __init__(self):
        super().__init__()
        self.table, self.norm, self.layer, self.last = (
            nn.Embedding(9, 6),
            nn.RMSNorm(6),
            nn.Conv1d(4, 4, 1),
            nn.Linear(6, 6),
        )

    def forward(self, x, timestep=None):
        return self.last(input=self.layer(input=self.norm(x=x + self.table(input=torch.arange(4)))))


class Reading(nn.Module):
    """A weight that is a tensor to whoever reads it."""

    def __init__(self):
        super().__init__()
        self.layer, self.square = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(6, 6, bias=False)

    def forward(self, x, timestep=None):
        weight, square = self.layer.weight, self.square.weight
        standard = (weight - weight.mean((1, 2, 3), keepdim=True)) / weight.std() * 2.0
        x = F.conv2d(x, standard, self.layer.bias, padding=1) + 0.5 * weight[0, 0, 0, 0] - weight.detach().sum()
        return x @ square.t() + x @ (2 - square) + x @ -square.to(x.dtype) + (square @ x.mT).mT * square.size(0)


@torch.no_grad()
@pytest.mark.parametrize(("make", "x"), [(Named, torch.randn(2, 4, 6)), (Reading, torch.randn(2, 4, 7, 6))])
def test_layers_are_called_and_read_as_before(make, x, tmp_path):
    torch.manual_seed(0)
    plain, packed = reloaded(make(), tmp_path, make=make)
    torch.testing.assert_close(packed(x), plain(x), rtol=1e-5, atol=1e-5)
    packed.half()(x.half())
    packed.float()
    torch.testing.assert_close(packed(x), plain(x), rtol=1e-5, atol=1e-5)


class Shared(nn.Module):
    """A layer under two names and in a list, tied weights of two layers, and one that is read outside of its layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.again = self.first
        self.unseen = [self.first]
        self.inner = nn.ModuleDict({"one": self.first, "other": nn.Conv2d(4, 4, 3, padding=1)})
        self.inner["other"].weight = self.first.weight
        self.table = nn.Embedding(4, 6)
        self.head = nn.Linear(6, 4, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x, timestep=None):
        x = self.again(self.first(x)) + self.unseen[0](x) + self.inner["other"](self.inner["one"](x))
        x = self.head(x) @ self.table(torch.arange(4))
        return x + F.linear(x, self.head.weight) @ self.table.weight


@torch.no_grad()
def test_what_is_shared_is_stored_once_and_stays_shared(tmp_path):
    torch.manual_seed(0)
    model = Shared()
    plain, packed = reloaded(model, tmp_path, make=Shared)
    assert torch.equal(packed(X2), plain(X2))
    assert packed.again is packed.first is packed.unseen[0]
    assert packed.inner["other"].weight is packed.first.weight
    names = {name.split(".weight")[0] for name in read_stored(tmp_path / "own.safetensors", plain)[0]}
    assert names == {"first", "first.bias", "inner.other.bias", "table"}
    again = pickle.loads(pickle.dumps(packed))
    assert again.inner["other"].weight is again.first.weight
    assert torch.equal(again(X2), plain(X2))


class Bare(nn.Module):
    """Parameters outside of layers, one of them without axes, one that a layer has too, and those in containers."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.randn(()))
        self.table = nn.Parameter(torch.randn(4, 7, 6))
        self.layer = nn.Conv2d(4, 4, 1, bias=False)
        self.kernel = self.layer.weight
        self.several = nn.ParameterList([torch.randn(3), torch.randn(6, 6)])
        self.last = nn.Linear(6, 6)

    def forward(self, x, timestep=None):
        x = self.layer(x * self.gain) + self.table + F.conv2d(x, self.kernel)
        return self.last(x @ self.several[1]) + self.several[0].sum()


@torch.no_grad()
def test_parameters_outside_of_layers_stay_in_float32(tmp_path):
    torch.manual_seed(0)
    model = Bare()
    stored = laqfi.quantize(model, Measured(ones(model)), policy="bits", format="int2", rest="float8_e4m3fn")
    formats = {name: one.layout.format.name for name, one in stored.items()}
    kept = ("gain", "table", "kernel", "several.0", "several.1")
    assert formats == dict.fromkeys(kept, "float32") | {"last.weight": "int2", "last.bias": "float8_e4m3fn"}
    plain, packed = reloaded(model, tmp_path, make=Bare)
    assert torch.equal(packed(X2), plain(X2))
    assert {name for name, _ in packed.named_parameters()} == set(kept)


def test_a_budget_counts_what_stays_in_float32():
    model = Bare()
    options = {"target": {"ratio": 1.05}, "formats": ["int2", "int8"], "rest": "float32"}
    stored = laqfi.quantize(model, Measured(ones(model)), policy="budget", **options)
    size = sum(one.layout.bytes() for one in stored.values())
    assert size <= 4 * sum(p.numel() for p in model.parameters()) / 1.05
    assert stored["table"].layout.format.name == "float32"


def parametrized():
    return parametrizations.weight_norm(nn.Conv2d(4, 4, 3))


def own_parametrization():
    layer = nn.Linear(4, 4)
    parametrize.register_parametrization(layer, "weight", nn.Tanh())
    return layer


class Standardized(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


def made_in_inference_mode():
    with torch.inference_mode():
        return nn.Linear(4, 4)


def patched(name):
    """As programs do that tile, trace or move a model."""
    layer = nn.Conv2d(4, 4, 3)
    setattr(layer, name, getattr(layer, name))
    return layer


REFUSED = {
    "another forward": (lambda: patched("forward"), r"layers\.1: has a 'forward' of its own"),
    "another convolution": (lambda: patched("_conv_forward"), r"layers\.1: has a '_conv_forward' of its own"),
    "inference": (made_in_inference_mode, r"layers\.1\.weight: was made in inference mode"),
    "weight norm": (
        lambda: weight_norm(nn.Conv2d(4, 4, 3)),
        r"layers\.1: holds 'weight_g', allowed are weight and bias",
    ),
    "pruned": (lambda: prune.identity(nn.Linear(4, 4), "weight"), r"layers\.1: holds 'weight_orig', allowed are"),
    "parametrized": (parametrized, r"layers\.1: has a parametrization"),
    "a parametrization of one's own": (own_parametrization, r"layers\.1: has a parametrization"),
    "a subclass": (lambda: Standardized(4, 4, 3), r"layers\.1: a Standardized cannot be stored, allowed are Conv1d"),
    "rows cut to a norm": (
        lambda: nn.Embedding(4, 4, max_norm=1.0),
        r"layers\.1: has max_norm 1, by which a call overwrites its weight, allowed is None",
    ),
    "bags": (lambda: nn.EmbeddingBag(4, 4), r"layers\.1: a EmbeddingBag cannot be stored"),
    "attention": (lambda: nn.MultiheadAttention(4, 2), r"layers\.1: a MultiheadAttention cannot be stored"),
    "recurrent": (lambda: nn.LSTM(4, 4), r"layers\.1: a LSTM cannot be stored"),
    "lazy": (lambda: nn.LazyConv2d(4, 3), r"layers\.1: a LazyConv2d cannot be stored"),
    "batch statistics": (lambda: nn.BatchNorm2d(4, track_running_stats=False), r"layers\.1: has no running statistics"),
    "complex": (lambda: nn.Linear(4, 4, dtype=torch.complex64), r"layers\.1\.weight: is torch\.complex64"),
    "without values": (lambda: nn.Linear(4, 4, device="meta"), r"layers\.1\.weight: is on the device meta"),
    "empty": (lambda: nn.Linear(0, 4), r"layers\.1\.weight: holds no values"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_a_layer_that_cannot_be_stored_is_refused_by_all_before_they_work(make, message, tmp_path):
    model = Wrapped(nn.Conv2d(4, 4, 3), make())
    with pytest.raises(LaqfiError, match=rf"^{message}[^\n]*$"):
        laqfi.quantize(model, Measured({}), policy="bits", format="int4")
    with pytest.raises(LaqfiError, match=rf"^{message}[^\n]*$"):
        laqfi.load(model, tmp_path / "missing.safetensors")


def test_a_model_that_is_stored_already_is_refused(tmp_path):
    _, packed = reloaded(Wrapped(nn.Linear(3, 3)), tmp_path)
    with pytest.raises(LaqfiError, match=r"^layers\.0: is stored already"):
        laqfi.quantize(packed, Measured({}), policy="bits", format="int4")
    with pytest.raises(LaqfiError, match=r"^layers\.0: is stored already"):
        laqfi.load(packed, tmp_path / "own.safetensors")


def test_a_model_without_parameters_is_refused():
    with pytest.raises(LaqfiError, match=r"^the model holds no parameters"):
        laqfi.quantize(nn.ReLU(), Measured({}), policy="bits", format="int4")


def test_a_refused_file_leaves_the_model_as_it_is(tmp_path):
    reloaded(Wrapped(nn.Linear(3, 3)), tmp_path)
    model = Wrapped(nn.Linear(3, 4))
    with pytest.raises(LaqfiError, match="is of another network"):
        laqfi.load(model, tmp_path / "own.safetensors")
    assert type(model.layers[0]) is nn.Linear


def test_no_weight_stays_alive_behind_the_stored_ones(tmp_path):
    model = Shared()
    stored = laqfi.quantize(model, Measured(ones(model)), policy="bits", format="int4")
    laqfi.save(stored, tmp_path / "own.safetensors")
    shapes = {tuple(parameter.shape) for parameter in model.parameters()}
    fresh = Shared()
    alive = [weakref.ref(parameter) for parameter in fresh.parameters()]
    laqfi.load(fresh, tmp_path / "own.safetensors")
    gc.collect()
    assert not any(ref() is not None for ref in alive)
    seen, left = set(), [fresh]
    while left:  # everything that the model holds, however it does
        one = left.pop()
        if id(one) in seen or isinstance(one, type) or type(one).__name__ in ("module", "function", "builtin_function"):
            continue
        seen.add(id(one))
        assert not (isinstance(one, torch.Tensor) and one.dtype == torch.float32 and tuple(one.shape) in shapes)
        left += gc.get_referents(one)


@torch.no_grad()
def test_stored_layers_tell_what_callers_read(tmp_path):
    model = Wrapped(nn.Conv2d(4, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.Conv2d(6, 4, 1, bias=False))
    _, packed = reloaded(model, tmp_path, rest="float16")
    first, norm, last = packed.layers
    assert (first.weight.dtype, first.weight.device, first.weight.shape) == (
        torch.float32,
        torch.device("cpu"),
        (6, 4, 3, 3),
    )
    assert (first.weight.dim(), first.weight.numel(), first.bias.dtype) == (4, 216, torch.float32)
    assert (first.in_channels, first.kernel_size, norm.num_groups, last.bias) == (4, (3, 3), 2, None)
    assert next(packed.buffers()).dtype == torch.float32  # which others take for the model's
    with pytest.raises(AttributeError):
        first.nothing  # noqa: B018


@torch.no_grad()
def test_a_network_of_diffusers_inside_another_module_computes_in_float32(tmp_path):
    """It asks itself for its dtype, and casts the embedding of the timestep to that."""

    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = nn.ModuleDict({"unet": small_unet()})

        def forward(self, x, timestep):
            return self.inside["unet"](x, timestep - 1).sample

    plain, packed = reloaded(Counted().eval(), tmp_path, rest="float16")
    assert packed.inside["unet"].dtype == torch.float32
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([1, 50, 100])
    torch.testing.assert_close(packed(x, t), plain(x, t), rtol=1e-5, atol=1e-5)
    assert packed.half().inside["unet"].dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_dtype_is_what_weights_are_restored_in_and_not_what_is_stored(dtype, tmp_path):
    model = Wrapped(nn.Embedding(5, 4), nn.Linear(4, 4))
    plain, packed = reloaded(model, tmp_path)
    kept = {name: tensor.clone() for name, tensor in packed.state_dict().items()}
    x = torch.tensor([0, 4])
    assert packed.to(dtype)(x).dtype == packed.layers[1].weight.dtype == next(packed.buffers()).dtype == dtype
    assert all(torch.equal(tensor, kept[name]) for name, tensor in packed.state_dict().items())
    assert torch.equal(packed.to(torch.float32)(x), plain(x))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_is_stored_and_runs_in_it(dtype, tmp_path):
    torch.manual_seed(0)
    model = Wrapped(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4)).eval().to(dtype)
    x = X2.to(dtype)
    _, packed = reloaded(model, tmp_path)
    plain = restored(packed, torch.float32).to(dtype)
    assert packed(x).dtype == dtype
    torch.testing.assert_close(packed(x), plain(x), rtol=0.02, atol=0.02)


@torch.no_grad()
def test_stored_batch_norms_leave_their_statistics_and_those_of_the_model_stay(tmp_path):
    torch.manual_seed(0)
    model = Wrapped(nn.BatchNorm2d(4))
    model(X2)
    plain, packed = reloaded(model, tmp_path)
    packed.train()
    assert torch.equal(packed(X2), plain.eval()(X2))
    assert torch.equal(packed.layers[0].running_mean, model.layers[0].running_mean)
    assert "layers.0.running_var" in packed.state_dict()


class Buffered(nn.Module):
    """Frequencies by chance and statistics, which no parameter tells of, and one buffer that it makes for itself."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.register_buffer("frequencies", torch.randn(4, dtype=torch.float64))
        self.register_buffer("order", torch.randperm(4))
        self.register_buffer("mask", torch.rand(6) > 0.5)
        self.register_buffer("made", torch.arange(4), persistent=False)
        self.shared = self.norm

    def forward(self, x, timestep=None):
        x = self.layer(self.norm(x)[:, self.order]) * self.frequencies.to(x.dtype)[:, None, None]
        return x[:, self.made] * self.mask


@torch.no_grad()
@pytest.mark.parametrize("coding", [None, "ans"])
def test_buffers_are_in_the_file(coding, tmp_path):
    torch.manual_seed(0)
    model = Buffered()
    model(X2)
    stored = laqfi.quantize(model.eval(), Measured(ones(model)), policy="bits", format="int5")
    laqfi.save(stored, tmp_path / "own.safetensors", coding)
    plain, packed = with_deltas(model, stored), Buffered().eval()
    laqfi.load(packed, tmp_path / "own.safetensors")
    assert torch.equal(packed(X2), plain(X2))
    assert all(torch.equal(one, dict(packed.named_buffers())[name]) for name, one in model.named_buffers())
    half = Buffered().eval().half()
    laqfi.load(half, tmp_path / "own.safetensors")
    torch.testing.assert_close(half(X2.half()).float(), plain(X2), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", ["frequencies", "mask"])
def test_buffers_of_another_model_are_refused_and_it_is_left(name, tmp_path):
    model, other = Buffered(), Buffered()
    laqfi.save(laqfi.quantize(model, Measured(ones(model)), policy="bits", format="int4"), tmp_path / "own.safetensors")
    setattr(other, name, getattr(other, name)[:3])
    with pytest.raises(LaqfiError, match=rf"own\.safetensors: the buffer {name} is \(\d,\), allowed is \(3,\)$"):
        laqfi.load(other, tmp_path / "own.safetensors")
    assert type(other.layer) is nn.Conv2d


class Featured(nn.Module):
    """Numbers by chance in attributes of all kinds, some of them shared, and one that is there after a call alone."""

    def __init__(self):
        super().__init__()
        self.layer, self.inner = nn.Conv2d(4, 4, 1), nn.Module()
        self.frequencies = self.inner.again = torch.randn(4)
        self.layer.phases = torch.rand(7, 6, dtype=torch.complex64)
        self.tables = {"one": torch.randn(6), "several": [torch.randn(()), (torch.randn(7, 1).expand(7, 6), 3.0, None)]}
        self.array, self.order, self.late, self.text = np.random.randn(6), torch.randperm(4), None, ["no", "numbers"]
        self.register_buffer("kept", torch.randn(4))
        self.view = self.kept[:2]

    def forward(self, x, timestep=None):
        if self.late is None:
            self.late = torch.randn(6)
        x = self.layer(x)[:, self.order] * (self.frequencies + self.inner.again)[:, None, None] * self.layer.phases.real
        one, (two, _, _) = self.tables["several"]
        x = x + self.tables["one"] * one + two + torch.from_numpy(self.array).to(x) * self.late
        return x * self.view.sum()


@torch.no_grad()
@pytest.mark.parametrize("coding", [None, "ans"])
def test_tensors_that_are_neither_parameters_nor_buffers_are_in_the_file(coding, tmp_path):
    torch.manual_seed(0)
    model = Featured()
    model(X2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are more than the weights
        stored = laqfi.quantize(model, Measured(ones(model)), policy="bits", format="int5", coding=coding)
    laqfi.save(stored, tmp_path / "own.safetensors", coding)
    plain, packed = with_deltas(model, stored), Featured()
    laqfi.load(packed, tmp_path / "own.safetensors")
    assert torch.equal(packed(X2), plain(X2))
    assert torch.equal(restored(packed, torch.float32)(X2), plain(X2))
    assert packed.frequencies is packed.inner.again
    assert packed.view.data_ptr() == packed.kept.data_ptr()
    assert (packed.text, packed.tables["several"][1][1:]) == (["no", "numbers"], (3.0, None))


def test_what_is_shared_is_in_the_file_once_and_more_of_it_than_of_weights_is_told():
    model = Wrapped(nn.Linear(4, 4))
    model.seen = model.layers.seen = torch.zeros(1000)
    with pytest.warns(UserWarning, match=r"^layers\.seen, seen: take 4,000 bytes of the file, all parameters \d\d"):
        stored = laqfi.quantize(model, Measured(ones(model)), policy="bits", format="int4")
    model.seen = model.layers.seen = torch.zeros(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stored = laqfi.quantize(model, Measured(ones(model)), policy="bits", format="int4")
    assert stored.attributes["seen"] is stored.attributes["layers.seen"]


def as_list(model):
    model.several = [model.layers[1].weight]


def as_data(model):
    model.flat = {"one": model.layers[1].weight.data.flatten()}


def as_view(model):
    model.first = model.layers[1].weight[:1]


def as_buffer(model):
    model.register_buffer("turned", model.layers[1].weight.data.T, persistent=False)


def as_sparse(model):
    model.edges = torch.eye(3).to_sparse()


ALIASES = {
    as_list: r"several\[0\]: shares its numbers with the parameter layers\.1\.weight, allowed is to read that itself",
    as_data: r"flat\['one'\]: shares its numbers with the parameter layers\.1\.weight",
    as_view: r"first: shares its numbers with the parameter layers\.1\.weight",
    as_buffer: r"turned: shares its numbers with the parameter layers\.1\.weight",
    as_sparse: r"edges: is torch\.sparse_coo, allowed is a dense tensor that holds values",
}


@pytest.mark.parametrize(("change", "message"), ALIASES.items(), ids=[one.__name__ for one in ALIASES])
def test_tensors_that_would_go_on_with_other_numbers_are_refused(change, message, tmp_path):
    model = Wrapped(nn.Linear(4, 4), nn.Linear(4, 4))
    change(model)
    with pytest.raises(LaqfiError, match=rf"^{message}[^\n]*$"):
        laqfi.quantize(model, Measured(ones(model)), policy="bits", format="int4")
    with pytest.raises(LaqfiError, match=rf"^{message}[^\n]*$"):
        laqfi.load(model, tmp_path / "missing.safetensors")


def test_a_network_of_diffusers_has_no_tensors_beside(tmp_path):
    model = small_unet()
    assert not laqfi.quantize(model, Measured(ones(model)), policy="bits", format="int4").attributes


def test_what_quantize_did_not_give_is_not_saved(tmp_path):
    with pytest.raises(LaqfiError, match=r"^weight: found a Tensor, allowed is what quantize gives$"):
        laqfi.save(nn.Linear(2, 2).state_dict(), tmp_path / "own.safetensors")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("copied", [dict, lambda stored: stored | {}, lambda stored: stored.copy()])
def test_a_copy_that_has_lost_the_buffers_is_warned_of_and_not_loaded(copied, tmp_path):
    model = Buffered()
    stored = laqfi.quantize(model, Measured(ones(model)), policy="bits", format="int4")
    with pytest.warns(UserWarning, match=r"^stored: found a dict, expected is what quantize gives: it holds the buf"):
        laqfi.save(copied(stored), tmp_path / "own.safetensors")
    with pytest.raises(LaqfiError, match=r"own\.safetensors: holds no buffer [^\n]*, which the model has"):
        laqfi.load(Buffered(), tmp_path / "own.safetensors")
    laqfi.save(copy.copy(stored), tmp_path / "own.safetensors")
    laqfi.load(Buffered(), tmp_path / "own.safetensors")


@torch.no_grad()
def test_hooks_of_a_layer_are_called_when_it_is_stored(tmp_path):
    model = Wrapped(nn.Linear(4, 4))
    plain, _ = reloaded(model, tmp_path)
    hooked = Wrapped(nn.Linear(4, 4))
    hooked.layers[0].register_forward_hook(lambda module, x, output: output + 1)
    laqfi.load(hooked, tmp_path / "own.safetensors")
    x = torch.randn(2, 4)
    assert torch.equal(hooked(x), plain(x) + 1)


@pytest.mark.parametrize("register", [register_module_forward_hook, register_module_forward_pre_hook])
def test_forward_hooks_of_all_modules_are_refused(register, tmp_path):
    """They would be called with what stands for the layers, which is of other classes."""
    model = Wrapped(nn.Linear(4, 4))
    handle = register(lambda module, x, output=None: None)
    try:
        with pytest.raises(LaqfiError, match=r"^PyTorch: has a forward hook for all modules, allowed are hooks"):
            laqfi.quantize(model, Measured(ones(model)), policy="bits", format="int4")
    finally:
        handle.remove()
    laqfi.quantize(model, Measured(ones(model)), policy="bits", format="int4")


@pytest.mark.parametrize("size", [36, 37, 64, 65536])
@pytest.mark.parametrize("policy", ["bits", "budget"])
def test_groups_as_wide_as_a_channel_or_wider_are_the_channel(size, policy):
    model = Wrapped(nn.Conv2d(4, 4, 3), nn.Linear(4, 3), nn.ConvTranspose2d(4, 2, 3))
    options = {"bits": {"format": "int8"}, "budget": {"formats": ["int8"], "target": {"ratio": 1.5}}}[policy]
    stored = laqfi.quantize(model, Measured(ones(model)), policy=policy, **(options | {"group_size": size}))
    whole = laqfi.quantize(model, Measured(ones(model)), policy=policy, **options)
    for name, one in stored.items():
        assert one.layout == whole[name].layout
        assert all(torch.equal(part, whole[name].parts[key]) for key, part in one.parts.items())


def test_norms_are_no_matrices_however_many_axes_they_have():
    model = Wrapped(nn.LayerNorm((7, 6)), nn.Linear(6, 6))
    stored = laqfi.quantize(model, Measured(ones(model)), policy="bits", format="int2")
    assert {name: one.layout.format.name for name, one in stored.items() if "weight" in name} == {
        "layers.0.weight": "float16",
        "layers.1.weight": "int2",
    }


def corners_unused(model):
    fisher = ones(model)
    fisher["layers.0.weight"].flatten(2)[:, :, 0] = 0
    return fisher


def test_kernel_positions_are_left_out_only_when_asked():
    model = Wrapped(nn.Conv2d(4, 4, 3), nn.ConvTranspose2d(4, 4, 3))
    whole = laqfi.quantize(model, Measured(corners_unused(model)), policy="bits", format="int8")
    few = laqfi.quantize(model, Measured(corners_unused(model)), policy="bits", format="int8", one_size=True)
    assert whole["layers.0.weight"].layout.taps is None
    assert few["layers.0.weight"].layout.taps == tuple(range(1, 9))
    assert whole["layers.0.weight"].delta.abs().max() < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fisher: fisher.pop("layers.0.bias"), r"fisher: holds no layers\.0\.bias"),
        (
            lambda fisher: fisher.update({"layers.0.weight": torch.ones(1)}),
            r"layers\.0\.weight is \(1,\), allowed is \(4, 3\)",
        ),
        (lambda fisher: fisher["layers.0.bias"].fill_(-1), r"layers\.0\.bias holds values that are negative"),
        (lambda fisher: fisher["layers.0.bias"].fill_(torch.nan), r"layers\.0\.bias holds values that are negative"),
    ],
)
def test_fisher_information_of_another_model_is_refused(change, message):
    model = Wrapped(nn.Linear(3, 4))
    fisher = ones(model)
    change(fisher)
    with pytest.raises(LaqfiError, match=message):
        laqfi.quantize(model, Measured(fisher), policy="bits", format="int4")


@pytest.mark.parametrize("weighting", ["last", "sampler", "image"])
def test_a_weighting_that_was_not_measured_is_refused(weighting):
    model = Wrapped(nn.Linear(3, 4))
    options = {"target": {"ratio": 2}, "formats": ["int4"], "weighting": weighting}
    with pytest.raises(LaqfiError, match=rf"^weighting: found '{weighting}', allowed is 'uniform'"):
        laqfi.quantize(model, Measured(ones(model)), policy="budget", **options)
