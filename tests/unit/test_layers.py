import pytest
import torch
from torch import nn

from laqfi.storage.formats import Format
from laqfi.storage.layout import Layout
from laqfi.storage.modules import StoredLayer, output_axis, store_layers
from stored import quantize

FORMATS = [
    Format("int3"),
    Format("int4", symmetric=False, group_size=5),
    Format("int8", group_size=-1),
    Format("float8_e4m3fn"),
    Format("bfloat16"),
    Format("float32"),
]
LAYERS = {
    "conv": (lambda: nn.Conv2d(4, 6, 3), (2, 4, 7, 7)),
    "strided": (lambda: nn.Conv2d(4, 8, 3, stride=2, padding=1), (2, 4, 8, 8)),
    "grouped": (lambda: nn.Conv2d(4, 8, 3, padding=(1, 2), groups=2, bias=False), (2, 4, 5, 5)),
    "dilated": (lambda: nn.Conv2d(4, 8, (3, 1), dilation=2, padding="same"), (2, 4, 7, 7)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1), (2, 4, 5, 5)),
    "transposed, extra": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (2, 4, 5, 5)),
    "linear": (lambda: nn.Linear(10, 6), (2, 3, 10)),
    "linear without bias": (lambda: nn.Linear(10, 6, bias=False), (2, 10)),
    "norm": (lambda: nn.GroupNorm(2, 8, eps=1e-3), (2, 8, 4, 4)),
}
every_layer = pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)


def stored(layer, format):
    """Layouts, parts and restored weights of the layer's tensors; vectors are stored in float16."""
    layouts, parts, restored = {}, {}, {}
    for name, tensor in layer.named_parameters():
        tensor = tensor.detach()
        axis = output_axis(layer) if tensor.dim() > 1 else 0
        layouts[name] = Layout(format if tensor.dim() > 1 else Format("float16"), tuple(tensor.shape), axis)
        parts[name], restored[name] = quantize(tensor, layouts[name], "mse")
    return layouts, parts, restored


def state_of(parts):
    return {f"{name}.{part.strip('.') or 'value'}": t for name, some in parts.items() for part, t in some.items()}


def pair(make, format, dtype=torch.float32):
    """A stored layer, and the plain one with the restored weights."""
    torch.manual_seed(0)
    layer = make()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    layouts, parts, _ = stored(layer, format)
    plain = make().to(dtype)
    plain.load_state_dict({name: layouts[name].restore(parts[name], dtype) for name in layouts})
    small = StoredLayer(layer, layouts)
    small.load_state_dict(state_of(parts))
    return small, plain


@torch.no_grad()
@every_layer
@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_a_stored_layer_computes_what_the_plain_one_does_with_the_restored_weights(make, shape, format):
    small, plain = pair(make, format)
    x = torch.randn(shape)
    assert torch.equal(small(x), plain(x))


@torch.no_grad()
@every_layer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("format", [Format("int4"), Format("float8_e4m3fn")], ids=lambda format: format.name)
def test_a_stored_layer_computes_in_the_dtype_of_its_input(make, shape, dtype, format):
    small, plain = pair(make, format, dtype)
    x = torch.randn(shape).to(dtype)
    assert small(x).dtype == dtype
    assert torch.equal(small(x), plain(x))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU()),
        nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1),
        nn.Flatten(2),
        nn.Linear(64, 5),
    )


def stored_network(format):
    """A network on stored layers, its layouts, and the plain network with the restored weights."""
    plain, small = network(), network()
    layouts, state = {}, {}
    for path, module in plain.named_modules():
        if path and not list(module.children()):
            of_module, parts, restored = stored(module, format)
            module.load_state_dict(restored)
            layouts |= {f"{path}.{name}": layout for name, layout in of_module.items()}
            state |= {f"{path}.{name}": tensor for name, tensor in state_of(parts).items()}
    store_layers(small, layouts)
    small.load_state_dict(state)
    return small, layouts, plain


@torch.no_grad()
@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_a_network_of_stored_layers_computes_what_the_plain_one_does(format):
    small, _, plain = stored_network(format)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(small(x), plain(x))


@torch.no_grad()
@pytest.mark.parametrize("format", FORMATS[:-1], ids=lambda format: format.name)
def test_only_the_stored_tensors_are_resident_before_and_after_forward(format):
    small, layouts, _ = stored_network(format)
    for _ in range(2):
        assert list(small.parameters()) == []
        buffers = list(small.buffers())
        assert all(buffer.dtype != torch.float32 for buffer in buffers)
        assert sum(b.numel() * b.element_size() for b in buffers) == sum(layout.bytes() for layout in layouts.values())
        small(torch.randn(2, 3, 4, 4))


@torch.no_grad()
@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_a_compiled_stored_layer_is_one_graph_with_the_same_result(format):
    make, shape = LAYERS["transposed"]
    layer, _ = pair(make, format)
    x = torch.randn(shape)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)  # raises where it cannot be one graph
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x), layer(x))


def test_the_state_of_stored_layers_can_be_saved_and_loaded():
    first, layouts, _ = stored_network(Format("int5", symmetric=False))
    second = network()
    store_layers(second, layouts)
    second.load_state_dict(first.state_dict())
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(first(x), second(x))
    assert "0.weight.packed" in first.state_dict()
    assert "0.bias.value" in first.state_dict()


@torch.no_grad()
def test_gradients_reach_the_input_through_stored_layers():
    small, _, plain = stored_network(Format("int4"))
    found = []
    for model in (small, plain):
        x = torch.ones(1, 3, 4, 4, requires_grad=True)
        with torch.enable_grad():
            model(x).square().sum().backward()
        found.append(x.grad)
    assert torch.equal(*found)


def test_layers_without_parameters_stay_as_they_are():
    model = nn.Sequential(nn.ReLU(), nn.Dropout(0.1), nn.GroupNorm(1, 4, affine=False))
    before = list(model)
    store_layers(model, {})
    assert list(model) == before


def test_output_channels_are_the_second_axis_of_transposed_convolutions_only():
    assert output_axis(nn.ConvTranspose2d(4, 6, 4)) == 1
    assert output_axis(nn.Conv2d(4, 6, 4)) == output_axis(nn.Linear(4, 6)) == output_axis(nn.GroupNorm(2, 4)) == 0
