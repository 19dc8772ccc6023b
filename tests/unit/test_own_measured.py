"""Models of one's own are measured right, or refused in one line before they are measured; and left as they were."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_full_backward_pre_hook
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import laqfi
from laqfi.api import Measured
from laqfi.base.errors import LaqfiError
from laqfi.base.random import generator
from laqfi.diffusion.process import add_noise, linear_alphas_cumprod
from laqfi.sensitivity.curvature import compensations, layers_of
from laqfi.sensitivity.fisher import fisher_maps
from laqfi.sensitivity.layers import channels_first, is_plain, patches
from laqfi.storage.formats import Format
from laqfi.storage.layout import Layout

SETTINGS = {"timesteps": [30], "chunk": 2, "seed": 3}
IMAGES = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def fisher_of(model, images=IMAGES, alphas=None, **changes):
    alphas = linear_alphas_cumprod(100, 0.001, 0.1) if alphas is None else alphas
    return fisher_maps(model, images, alphas, **({"bins": [100]} | SETTINGS | changes)).per_weight


def curvature_of(model, images=IMAGES, alphas=None, **changes):
    alphas = linear_alphas_cumprod(100, 0.001, 0.1) if alphas is None else alphas
    return compensations(model, images, alphas, **(SETTINGS | changes))


both = pytest.mark.parametrize("measure", [fisher_of, curvature_of])


def by_single_backward_passes(model):
    """The Gauss–Newton Fisher of a copy in eval mode whose parameters all learn."""
    model = copy.deepcopy(model).eval().requires_grad_(True)
    random, found = generator("fisher", 3, 30), {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    noise = torch.from_numpy(random.standard_normal(IMAGES.shape, dtype="float32"))
    probe = torch.from_numpy(random.integers(0, 2, IMAGES.shape)).float() * 2 - 1
    t = torch.full((len(IMAGES),), 30)
    x = add_noise(IMAGES, noise, t, linear_alphas_cumprod(100, 0.001, 0.1))
    for i in range(len(x)):
        model.zero_grad()
        (probe[i : i + 1] * model(x[i : i + 1], t[i : i + 1])).sum().backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                found[name] += parameter.grad.square() / len(x)
    return found


class Chain(nn.Module):
    def __init__(self, *layers, how=lambda layer, x: layer(x)):
        super().__init__()
        self.layers, self.how = nn.ModuleList(layers), how

    def forward(self, x, timestep):
        for layer in self.layers:
            x = self.how(layer, x)
        return x


class Flat(nn.Module):
    """A one-dimensional convolution of the pixels."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(2, 2, 3, padding="same", padding_mode="circular", groups=2)

    def forward(self, x):
        return self.layer(x.flatten(2)).view_as(x)


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.ConvTranspose3d(1, 1, 3, padding=1)

    def forward(self, x):
        return self.layer(x[:, None])[:, 0]


class Classes(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.gain = nn.Embedding(3, 2), nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return self.gain * x + self.table((x[:, 0, 0, 0] > 0).long())[:, :, None, None]


class Read(nn.Module):
    """A weight that its layer uses once, and something else too."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Conv2d(2, 2, 1), nn.GroupNorm(1, 2)

    def forward(self, x):
        return self.norm(self.layer(x) + F.conv2d(x.square(), self.layer.weight)) * self.norm.weight.sum()


def hooked():
    layer = nn.Conv2d(2, 2, 3, padding=1)
    layer.register_forward_hook(lambda module, x, output: output.square())
    return layer


class Experts(nn.Module):
    """Layers that not every image passes."""

    def __init__(self):
        super().__init__()
        self.dark, self.bright = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x):
        bright, found = x[:, 0, 0, 0] > x.new_tensor(-0.1), torch.empty_like(x)
        found[bright] = self.bright(x[bright])
        found[~bright] = self.dark(x[~bright])
        return found


class Table(nn.Module):
    def __init__(self, **how):
        super().__init__()
        self.table = nn.Embedding(3, 2, **how)

    def forward(self, x):
        return x + self.table((x[:, 0] > 0).long()).movedim(3, 1)


class Sized(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(2, 2, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1)

    def forward(self, x):
        return self.up(self.down(x), output_size=x.shape[2:])


class Functional(nn.Module):
    """A weight that is read without a call of its layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return F.conv2d(x, self.layer.weight)


def test_an_embedding_that_scales_its_gradients_by_how_often_it_is_used_is_measured_as_any_other():
    torch.manual_seed(0)
    model = Chain(Table(scale_grad_by_freq=True), nn.Conv2d(2, 2, 1))
    plain = copy.deepcopy(model)
    plain.layers[0].table.scale_grad_by_freq = False
    for name, expected in by_single_backward_passes(plain).items():
        torch.testing.assert_close(fisher_of(model)[name], expected, rtol=1e-4, atol=1e-6)
    assert model.layers[0].table.scale_grad_by_freq


def hooked_backward():
    layer = nn.Conv2d(2, 2, 3, padding=1)
    layer.register_full_backward_hook(lambda module, inner, outer: None)
    return layer


def hooked_gradients(register):
    """Layers measured together and one measured alone, of which something changes gradients that flow through it."""
    model = Chain(nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1, groups=2), nn.GroupNorm(1, 2))
    register(model)
    return model


HOOKS = {
    "of a parameter": lambda m: m.layers[1].weight.register_hook(lambda gradient: 3 * gradient),
    "of a layer": lambda m: m.layers[2].register_full_backward_hook(lambda _, inner, outer: (3 * inner[0],)),
    "before a layer": lambda m: m.layers[2].register_full_backward_pre_hook(lambda _, outer: (3 * outer[0],)),
    "of the model": lambda m: m.register_full_backward_pre_hook(lambda _, outer: (3 * outer[0],)),
    "after all": lambda m: m.layers[1].weight.register_post_accumulate_grad_hook(lambda p: p.data.zero_()),
    "of all modules": lambda m: register_module_full_backward_pre_hook(lambda _, outer: (3 * outer[0],)),
}


@pytest.mark.parametrize("register", HOOKS.values(), ids=HOOKS)
def test_hooks_that_change_gradients_change_nothing_that_is_measured_and_stay(register):
    """What is measured is the derivative of the output, not what training makes of it."""
    torch.manual_seed(0)
    model, handles = hooked_gradients(lambda model: None), []
    expected, wanted = by_single_backward_passes(model), dict(curvature_of(model))
    handles.append(register(model))
    called = count_hooks(model)
    try:
        found, known = fisher_of(model), dict(curvature_of(model))
        assert count_hooks(model) == called
    finally:
        handles[0].remove()
    assert count_hooks(model) == 0
    for name, one in expected.items():
        torch.testing.assert_close(found[name], one, rtol=1e-4, atol=1e-6, msg=name)
    assert all(torch.equal(known[name].feedback, one.feedback) for name, one in wanted.items())


def count_hooks(model):
    of_parameters = [h for p in model.parameters() for h in (p._backward_hooks, p._post_accumulate_grad_hooks) if h]
    of_modules = [h for m in model.modules() for h in (m._backward_hooks, m._backward_pre_hooks)]
    everywhere = [torch.nn.modules.module._global_backward_pre_hooks]
    return sum(len(hooks) for hooks in (*of_parameters, *of_modules, *everywhere))


MODELS = {
    "some images": lambda: Chain(nn.Conv2d(2, 2, 1), Experts()),
    "sparse table": lambda: Chain(Table(sparse=True), nn.Conv2d(2, 2, 1)),
    "output size": lambda: Chain(Sized()),
    "functional": lambda: Chain(Functional()),
    "a backward hook": lambda: Chain(hooked_backward()),
    "checkpointed": lambda: Chain(nn.Conv2d(2, 2, 1), how=lambda layer, x: checkpoint(layer, x, use_reentrant=False)),
    "transposed, padded beyond its kernel": lambda: Chain(
        nn.ConvTranspose2d(2, 2, 3, padding=3), nn.ConvTranspose2d(2, 2, 5)
    ),
    **{
        mode: lambda mode=mode: Chain(nn.Conv2d(2, 2, 3, padding=1, padding_mode=mode))
        for mode in ("circular", "reflect")
    },
    "replicate, strided": lambda: Chain(
        nn.Conv2d(2, 3, (3, 5), stride=2, padding=(1, 2), padding_mode="replicate"),
        nn.ConvTranspose2d(3, 2, 4, stride=2, padding=1),
    ),
    "same": lambda: Chain(
        nn.Conv2d(2, 2, (4, 3), dilation=2, padding="same"), nn.Tanh(), nn.Conv2d(2, 2, 1, padding="valid")
    ),
    "same, reflect": lambda: Chain(nn.Conv2d(2, 2, 4, padding="same", padding_mode="reflect")),
    "grouped": lambda: Chain(nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.ConvTranspose2d(4, 2, 3, padding=1, groups=2)),
    "transposed, dilated": lambda: Chain(nn.ConvTranspose2d(2, 2, 3, dilation=2, padding=2)),
    "transposed, extra": lambda: Chain(
        nn.Conv2d(2, 2, 2, stride=2), nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1, output_padding=1)
    ),
    "by keyword": lambda: Chain(nn.Conv2d(2, 2, 3, padding=1), how=lambda layer, x: layer(input=x)),
    "one dimension": lambda: Chain(Flat()),
    "three dimensions": lambda: Chain(Deep()),
    "classes and a number": lambda: Chain(Classes()),
    "batch norm": lambda: Chain(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)),
    "layer and root mean square norm": lambda: Chain(nn.LayerNorm(8), nn.RMSNorm(8), nn.GroupNorm(1, 2)),
    "read beside": lambda: Chain(Read(), nn.Conv2d(2, 2, 1)),
    "a hook": lambda: Chain(hooked()),
    "frozen": lambda: Chain(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)).requires_grad_(False),
    "twice": lambda: Chain(*[nn.Conv2d(2, 2, 3, padding=1)] * 2),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_fisher_information_is_that_of_single_backward_passes(make):
    torch.manual_seed(0)
    model = make()
    for name, expected in by_single_backward_passes(model).items():
        torch.testing.assert_close(fisher_of(model)[name], expected, rtol=1e-4, atol=1e-6, msg=name)


def test_a_model_that_casts_to_half_by_itself_is_measured():
    torch.manual_seed(0)
    model = Chain(nn.Conv2d(2, 2, 3, padding=1), nn.GroupNorm(1, 2), nn.Conv2d(2, 2, 1))
    model.how = torch.autocast("cpu", torch.bfloat16)(model.how)
    for name, expected in by_single_backward_passes(model).items():
        torch.testing.assert_close(fisher_of(model)[name], expected, rtol=0.05, atol=1e-3, msg=name)
    assert dict(curvature_of(model))["layers.2.weight"].pivots.dtype == torch.float32


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_patches_of_a_layer_that_is_compensated_make_its_output(make):
    torch.manual_seed(0)
    for module in make().modules():
        if type(module) in (nn.Conv2d, nn.ConvTranspose2d) and is_plain(module):
            x = torch.randn(2, module.in_channels, 6, 7)
            axis = int(isinstance(module, nn.ConvTranspose2d))
            matrix = Layout(Format("int4"), tuple(module.weight.shape), axis).matrix(module.weight)
            expected = channels_first(module, module(x)) - module.bias[:, None]
            torch.testing.assert_close(matrix @ patches(module, x), expected, rtol=1e-4, atol=1e-5)


def test_what_is_grouped_shared_or_no_matrix_of_inputs_has_no_compensation():
    model = Chain(nn.Conv2d(2, 2, 1, groups=2), nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1))
    assert [*dict(curvature_of(model))] == ["layers.1.weight", "layers.2.weight"]
    model.layers[2].weight = model.layers[1].weight
    assert not layers_of(model)


def in_training():
    """BatchNorm in training mode, some frozen, a gradient of the caller's."""
    model = Chain(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(2, 2, 1))
    model.layers[3].requires_grad_(False).eval()
    for parameter in model.layers[1].parameters():
        parameter.grad = torch.full_like(parameter, 7)
    return model.train()


@both
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_model_is_left_as_it_was(measure, context):
    torch.manual_seed(0)
    model = in_training()
    model.layers[3].eval()
    before = copy.deepcopy(model)
    expected = dict(measure(copy.deepcopy(model).eval().requires_grad_(True)))
    with context():
        found = measure(model)
        if measure is curvature_of:
            name, one = next(found)  # what is not taken to its end leaves nothing changed, either
            found = {name: one}
    for name, one in found.items():
        wanted = expected[name]
        assert torch.equal(getattr(one, "feedback", one), getattr(wanted, "feedback", wanted))
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True)
    )
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    for one, other in zip(model.parameters(), before.parameters(), strict=True):
        assert one.requires_grad == other.requires_grad
        assert (one.grad is None and other.grad is None) or torch.equal(one.grad, torch.full_like(one, 7))


@both
def test_what_a_call_writes_into_buffers_is_undone_and_what_the_caller_learns_is_left(measure):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.inner = nn.Conv2d(2, 2, 1), nn.Module()
            self.inner.register_buffer("calls", torch.zeros(()))
            self.register_buffer("last", None)
            self.register_buffer("mean", torch.zeros(()))

        def forward(self, x, timestep):
            self.inner.calls += 1
            self.mean = x.mean()
            return self.layer(x)

    model, images, alphas = Counting(), IMAGES.clone().requires_grad_(), ALPHAS.clone().requires_grad_()
    dict(measure(model, images, alphas.detach()))
    assert (model.inner.calls, model.mean, images.grad) == (0, 0, None)


class Remembering(nn.Module):
    """It writes attributes of every kind when it is called, and has numbers that learn elsewhere."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls, self.mean, self.last = nn.Conv2d(2, 2, 1), 0, torch.zeros(2), None
        self.seen, self.by_size, self.counts = [torch.zeros(())], {"nested": {}}, np.zeros(3)
        self.scale = torch.ones(2, 1, 1, requires_grad=True)

    def forward(self, x, timestep):
        self.calls += 1
        self.mean += x.detach().mean((0, 2, 3))
        self.last = self.new = self.layer(x) * self.scale
        self.seen[0] += 1
        self.seen.append(x)
        self.by_size["nested"][x.shape] = x
        self.counts += 1
        return self.last


@both
def test_what_a_call_writes_into_attributes_is_undone(measure):
    model = Remembering()
    kept = model.mean, model.seen, model.by_size["nested"], model.counts
    dict(measure(model))
    left = model.mean, model.seen, model.by_size["nested"], model.counts
    assert all(one is now for one, now in zip(kept, left, strict=True))
    assert (model.calls, model.last, model.mean.tolist(), hasattr(model, "new")) == (0, None, [0, 0], False)
    assert (model.seen, model.by_size, model.counts.tolist()) == ([0], {"nested": {}}, [0, 0, 0])
    assert (model.scale.grad, model.scale.requires_grad) == (None, True)


@both
def test_layers_that_are_not_registered_are_refused_if_they_are_called(measure):
    model = Chain(nn.Conv2d(2, 2, 1))
    model.hidden = {"several": [nn.Conv2d(2, 2, 1)]}
    measure(model)
    model.how = lambda layer, x: model.hidden["several"][0](layer(x))
    with pytest.raises(
        LaqfiError, match=r"^hidden\['several'\]\[0\]\.weight: moves the output and is no parameter of the"
    ):
        measure(model)


class Energy(nn.Module):
    """A network that gives the derivative of another one by the image."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, x, timestep):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = self.last(torch.tanh(self.layer(x))).square().sum()
            return torch.autograd.grad(energy, x, create_graph=True)[0]


@both
def test_a_model_that_takes_derivatives_itself_is_refused(measure):
    with pytest.raises(
        LaqfiError, match=r"^last: gets gradients in a call of the model, allowed is a model that takes"
    ):
        measure(Energy())


class Output(nn.Module):
    """A network whose output is made of its prediction."""

    def __init__(self, change):
        super().__init__()
        self.layer, self.change = nn.Conv2d(2, 2, 1), change

    def forward(self, x, timestep):
        return self.change(self.layer(x))


OUTPUTS = {
    "twice the channels": (lambda x: torch.cat([x, x], 1), r"gives \[2, 4, 8, 8\] for images \[2, 2, 8, 8\]"),
    "one channel": (lambda x: x[:, :1], r"gives \[2, 1, 8, 8\]"),
    "one pixel": (lambda x: x.mean((2, 3), keepdim=True), r"gives \[2, 2, 1, 1\]"),
    "the mean of the batch": (lambda x: x.mean(0), r"gives \[2, 8, 8\]"),
    "a number": (lambda x: x.sum(), r"gives \[\]"),
    "a tuple": (lambda x: (x,), "gives a tuple"),
    "a dictionary": (lambda x: {"sample": x}, "gives a dict"),
}


@both
@pytest.mark.parametrize(("change", "message"), OUTPUTS.values(), ids=OUTPUTS)
def test_an_output_that_is_not_the_noise_is_refused(measure, change, message):
    with pytest.raises(LaqfiError, match=rf"^the model {message}[^\n]*$"):
        measure(Output(change))


class Two(nn.Module):
    """Two layers, the second of which gets what `way` makes of the first."""

    def __init__(self, way):
        super().__init__()
        self.first, self.last, self.way = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), way

    def forward(self, x, timestep):
        return self.last(self.way(self.first, x, timestep))


def by_numpy(layer, x, timestep):
    return torch.from_numpy(layer(x).detach().numpy())


def overwritten(layer, x, timestep):
    with torch.no_grad():
        layer.weight.clamp_(-0.1, 0.1)
    return layer(x)


UNREACHED = r"first\.weight: no derivative of the output reaches it"
BATCHED = "the model predicts other noise in an image alone than beside another one"
OVERWRITTEN = "the model overwrites the images or timesteps that it is given"
FAILING = r"the model fails for images \[\d, 2, 8, 8\] and timesteps \[30.*\]: "
UNFIT = {
    "detached": (lambda layer, x, t: layer(x).detach(), UNREACHED),
    "without gradients": (torch.no_grad()(lambda layer, x, t: layer(x)), UNREACHED),
    "in inference mode": (torch.inference_mode()(lambda layer, x, t: layer(x).clone()), UNREACHED + "|" + FAILING),
    "by its data": (lambda layer, x, t: F.conv2d(x, layer.weight.data), UNREACHED),
    "by NumPy": (by_numpy, UNREACHED),
    "an old checkpoint": (lambda layer, x, t: checkpoint(layer, x, use_reentrant=True), UNREACHED),
    "the mean of a batch": (lambda layer, x, t: layer(x) - layer(x).mean(0, keepdim=True), BATCHED),
    "statistics of a batch": (lambda layer, x, t: F.batch_norm(layer(x), None, None, training=True), BATCHED),
    "chance": (lambda layer, x, t: F.dropout(layer(x), 0.5, training=True), BATCHED),
    "weights in place": (overwritten, r"first\.weight: is overwritten by a call of the model"),
    "images in place": (lambda layer, x, t: layer(x.mul_(2)), OVERWRITTEN),
    "timesteps in place": (lambda layer, x, t: layer(x) * t.sub_(1)[:, None, None, None], OVERWRITTEN),
    "other channels": (lambda layer, x, t: layer(x[:, :1]), FAILING + "RuntimeError: Given groups=1"),
    "too few classes": (lambda layer, x, t: layer(x) + F.embedding(t, x.new_ones(9, 8))[:, None, None], FAILING),
    "one timestep": (lambda layer, x, t: layer(x) * t.item(), FAILING),
    "no numbers": (lambda layer, x, t: layer(x) / 0 * 0, "the model gives values that are not finite at timestep 30"),
}


@both
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("way", "message"), UNFIT.values(), ids=UNFIT)
def test_a_model_that_would_be_measured_wrong_is_refused_before_it_is(measure, way, message, monkeypatch):
    monkeypatch.setattr("laqfi.sensitivity.fisher.summed", None)
    torch.manual_seed(0)
    model = Two(way)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(LaqfiError, match=rf"^({message})[^\n]*$"):
        measure(model)
    if way is not overwritten:
        assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_a_call_at_the_last_timestep_fails_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr("laqfi.sensitivity.fisher.summed", None)
    model = Two(lambda layer, x, t: layer(x) + F.embedding(t, x.new_ones(50, 8))[:, None, None])
    with pytest.raises(LaqfiError, match=r"^the model fails for images .* and timesteps \[60, 60\]: IndexError"):
        fisher_of(model, timesteps=[30, 60])


@both
def test_weights_that_are_not_finite_are_refused(measure):
    model = Chain(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1))
    model.layers[1].weight.data[0, 0] = torch.inf
    with pytest.raises(LaqfiError, match=r"^layers\.1\.weight: holds values that are not finite$"):
        measure(model)


ALPHAS = linear_alphas_cumprod(100, 0.001, 0.1)
INPUTS = {
    "an array": ({"images": IMAGES.numpy()}, r"images: found a ndarray, allowed is a tensor"),
    "a list": ({"images": [*IMAGES]}, r"images: found a list"),
    "no products": (
        {"alphas": torch.cat([torch.ones(1), 1 - torch.linspace(1e-4, 0.02, 100)])},
        "alphas_cumprod: ends",
    ),
    "nothing but ones": ({"alphas": torch.ones(101)}, "alphas_cumprod: ends with 1, allowed is up to 0.5"),
    "bytes": ({"images": torch.zeros(2, 2, 8, 8, dtype=torch.uint8)}, r"images: are torch\.uint8, allowed are floats"),
    "integers": ({"images": torch.zeros(2, 2, 8, 8, dtype=torch.long)}, r"images: are torch\.int64"),
    "up to 255": ({"images": (IMAGES + 1) * 127.5}, r"images: lie in \["),
    "not a number": ({"images": IMAGES * torch.nan}, r"images: lie in \[nan"),
    "no image": ({"images": IMAGES[:0]}, r"images: are \[0, 2, 8, 8\]"),
    "without timestep 0": ({"alphas": ALPHAS[1:]}, r"alphas_cumprod: begins with 0\.999, allowed is 1"),
    "a cosine without timestep 0": ({"alphas": torch.linspace(0, 1.5, 101)[1:].cos() ** 2}, r"alphas_cumprod: begins"),
    "betas": ({"alphas": torch.linspace(1e-4, 0.02, 101)}, r"alphas_cumprod: begins with 0\.0001"),
    "rising": ({"alphas": torch.cat([ALPHAS[:1], ALPHAS[1:].flip(0)])}, r"alphas_cumprod: does not fall"),
    "a batch of schedules": ({"alphas": ALPHAS[None]}, r"alphas_cumprod: is torch\.float64 \[1, 101\]"),
    "beyond the schedule": ({"timesteps": [30, 101], "bins": [101]}, r"timesteps: found 101, allowed is 1 to 100"),
    "timestep 0": ({"timesteps": [0, 30]}, r"timesteps\.0: found 0"),
    "no timestep": ({"timesteps": []}, r"timesteps: found \[\]"),
    "no chunk": ({"chunk": 0}, "chunk: found 0"),
}


@both
@pytest.mark.parametrize(("change", "message"), INPUTS.values(), ids=INPUTS)
def test_what_would_be_measured_wrong_is_refused(measure, change, message):
    if measure is curvature_of:
        change = {key: value for key, value in change.items() if key != "bins"}
    with pytest.raises(LaqfiError, match=rf"^{message}[^\n]*$"):
        measure(Chain(nn.Conv2d(2, 2, 1)), **change)


@pytest.mark.parametrize(
    ("bins", "message"),
    [
        ([10, 100], "no timestep in the bin 0 < t <= 10"),
        ([30, 100], "no timestep in the bin 30 < t <= 100"),
        ([20], "the last bin ends at 20, before timestep 30"),
        ([100, 50], "bins must increase"),
        ([], r"bins: found \[\]"),
    ],
)
def test_bins_without_a_timestep_and_timesteps_without_a_bin_are_refused(bins, message):
    with pytest.raises(LaqfiError, match=message):
        fisher_of(Chain(nn.Conv2d(2, 2, 1)), bins=bins)


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_is_refused(measure, dtype):
    with pytest.raises(LaqfiError, match=rf"^layers\.0\.weight: is {dtype}, allowed is float32 to measure in"):
        measure(Chain(nn.Conv2d(2, 2, 1)).to(dtype))


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_images_are_taken_in_the_dtype_of_the_model(measure, dtype):
    torch.manual_seed(0)
    model, images = Chain(nn.Conv2d(2, 2, 1)), (IMAGES * 64).round() / 64
    found, expected = dict(measure(model, images.to(dtype))), dict(measure(model, images))
    wanted = expected["layers.0.weight"]
    assert torch.equal(
        getattr(found["layers.0.weight"], "feedback", found["layers.0.weight"]), getattr(wanted, "feedback", wanted)
    )


@both
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [lambda: nn.PReLU(), lambda: parametrizations.weight_norm(nn.Conv2d(2, 2, 1))])
def test_a_model_that_cannot_be_stored_is_not_measured(measure, make):
    with pytest.raises(LaqfiError, match=r"^layers\.1: "):
        measure(Chain(nn.Conv2d(2, 2, 1), make()))


def grouped():
    torch.manual_seed(0)
    return Chain(nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.Conv2d(4, 2, 3, padding=1))


GPTQ = {"format": "int3", "rounding": "gptq"}


@pytest.mark.parametrize("policy", ["bits", "budget", "rate"])
def test_gptq_names_the_layer_without_a_curvature_before_anything_is_rounded(policy, monkeypatch):
    model = grouped()
    fisher, measured = fisher_of(model), dict(curvature_of(model))
    monkeypatch.setattr("laqfi.quant.evidence.store", None)  # what rounds
    options = {
        "bits": GPTQ,
        "budget": {"formats": ["int3", "int4"], "target": {"ratio": 6}, "rounding": "gptq"},
        "rate": {"target": {"ratio": 6}},  # whose rounding gptq is by default
    }[policy]
    message = r"^layers\.0\.weight has no curvature, by which the rounding gptq works; allowed is its compensation"
    for given in (measured, {}):
        with pytest.raises(LaqfiError, match=message):
            laqfi.quantize(model, Measured(fisher, given), policy=policy, **options)


def test_a_layer_without_a_curvature_is_rounded_to_nearest_when_asked():
    model = grouped()
    fisher = fisher_of(model)
    nearest = laqfi.quantize(model, Measured(fisher), policy="bits", format="int3")
    mixed = laqfi.quantize(
        model, Measured(fisher, dict(curvature_of(model)) | {"layers.0.weight": None}), policy="bits", **GPTQ
    )
    assert torch.equal(mixed["layers.0.weight"].delta, nearest["layers.0.weight"].delta)
    assert not torch.equal(mixed["layers.1.weight"].delta, nearest["layers.1.weight"].delta)


@pytest.mark.parametrize("side", [1, 5])
def test_a_curvature_of_another_size_is_refused(side):
    model, other = Chain(nn.Conv2d(2, 2, 3, padding=1)), Chain(nn.Conv2d(2, 2, side, padding=side // 2))
    measured = dict(curvature_of(other))
    found = 2 * side**2
    with pytest.raises(
        LaqfiError, match=rf"^compensations: layers\.0\.weight has a curvature of {found} columns .*18$"
    ):
        laqfi.quantize(model, Measured(fisher_of(model), measured), policy="bits", **GPTQ)


@pytest.mark.parametrize("name", ["layers.7.weight", "layers.0.bias"])
def test_a_curvature_of_no_matrix_of_the_model_is_refused(name):
    model = Chain(nn.Conv2d(2, 2, 1))
    measured = dict(curvature_of(model))
    with pytest.raises(LaqfiError, match=rf"^compensations: {name} is no weight matrix of the model"):
        laqfi.quantize(
            model, Measured(fisher_of(model), measured | {name: measured["layers.0.weight"]}), policy="bits", **GPTQ
        )


@torch.no_grad()
def test_a_model_measured_on_single_pixels_runs_on_whole_images():
    """There every kernel position but the middle one only met padding."""
    torch.manual_seed(0)
    model, pixels = Chain(nn.Conv2d(2, 2, 3, padding=1)), torch.rand(4, 2, 1, 1) * 2 - 1
    stored = laqfi.quantize(model, Measured(fisher_of(model, pixels)), policy="bits", format="int8")
    made = copy.deepcopy(model)
    for name, parameter in made.named_parameters():
        parameter.add_(stored[name].delta)
    assert (made(IMAGES, None) - model(IMAGES, None)).abs().max() < 0.01
    small = laqfi.quantize(model, Measured(fisher_of(model, pixels)), policy="bits", format="int8", one_size=True)
    assert small["layers.0.weight"].layout.taps == (4,)
