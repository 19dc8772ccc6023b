import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from laqfi.models.unet import Attention, ResidualBlock, TimeEmbedding, UNet, Unet, build, group_norm, group_of, groups

steady = settings(deadline=None, derandomize=True, max_examples=25)
PAPER = Unet(family="unet", base_channels=64, attention=[2, 6], heads=8, dropout=0.1)
SMALL = Unet(family="unet", base_channels=8, attention=[2, 6], heads=4, dropout=0.1)
attentions = st.sets(st.integers(1, 6)).map(lambda layers: sorted(layers))


def changed(settings: Unet, **values) -> Unet:
    return Unet(**settings.model_dump() | values)


def fresh(settings: Unet = SMALL, channels: int = 1) -> UNet:
    torch.manual_seed(0)
    return UNet(settings, channels).eval()


def randomised(module: nn.Module) -> nn.Module:
    """Weights as after some training: none is zero any more."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module.eval()


def outline(settings: Unet) -> UNet:
    with torch.device("meta"):
        return UNet(settings, 1)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def predict(unet: UNet, x: torch.Tensor, *timesteps: int) -> torch.Tensor:
    return unet(x, torch.tensor(timesteps))


def differ(a: torch.Tensor, b: torch.Tensor) -> bool:
    return not torch.allclose(a, b, atol=1e-4)


def test_paper_scale_has_37_million_parameters():
    assert 35e6 < sum(parameter.numel() for parameter in outline(PAPER).parameters()) < 38e6


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 32, 32), (1, 16, 24)])
def test_output_has_the_shape_of_the_input(channels, height, width):
    x = noise(2, channels, height, width)
    assert predict(fresh(SMALL, channels), x, 1, 1000).shape == x.shape


@pytest.mark.parametrize("base", [8, 64])
def test_six_layers_have_their_widths(base):
    layers = outline(changed(PAPER, base_channels=base)).layers
    assert list(layers) == ["1", "2", "3", "4", "5", "6"]
    for layer, width in zip(layers.values(), (1, 2, 4, 8, 8, 6), strict=True):
        convolutions = [layer.block1.conv1, layer.block1.conv2, layer.block2.conv1, layer.block2.conv2]
        assert {(c.in_channels, c.out_channels) for c in convolutions} == {(base * width, base * width)}


def test_three_layers_halve_the_image_and_three_double_it():
    sides = []
    unet = fresh()
    for layer in unet.layers.values():
        layer.resample.register_forward_hook(
            lambda _, inputs, output: sides.append((inputs[0].shape[2], output.shape[2]))
        )
    predict(unet, noise(1, 1, 32, 32), 1)
    assert sides == [(32, 16), (16, 8), (8, 4), (4, 8), (8, 16), (16, 32)]


@steady
@given(attentions)
def test_attention_sits_exactly_in_the_configured_layers(attention):
    layers = outline(changed(SMALL, attention=attention)).layers
    holding = {
        int(number) for number, layer in layers.items() if any(isinstance(m, Attention) for m in layer.modules())
    }
    assert holding == set(attention)


def test_output_is_exactly_zero_at_initialisation():
    assert not predict(fresh(), noise(2, 1, 8, 8), 1, 500).any()


def test_every_block_is_the_identity_at_initialisation():
    seen = []

    def compare(_, inputs, output):
        seen.append(torch.equal(inputs[0], output))

    unet = fresh()
    for module in unet.modules():
        if isinstance(module, ResidualBlock | Attention):
            module.register_forward_hook(compare)
    predict(unet, noise(2, 1, 8, 8), 1, 500)
    assert seen == [True] * 14


def test_no_block_stays_the_identity_once_its_weights_are_not_zero():
    seen = []
    unet = randomised(fresh())
    for module in unet.modules():
        if isinstance(module, ResidualBlock | Attention):
            module.register_forward_hook(lambda _, inputs, output: seen.append(differ(inputs[0], output)))
    predict(unet, noise(2, 1, 8, 8), 1, 500)
    assert seen == [True] * 14


def test_every_parameter_gets_a_gradient_once_no_weight_is_zero():
    unet = randomised(fresh())
    unet(noise(4, 1, 16, 16), torch.tensor([1, 10, 100, 1000])).square().mean().backward()
    assert [name for name, p in unet.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_gradient_is_the_slope_of_the_output():
    unet, timestep = randomised(fresh()).double(), torch.tensor([100])
    x, direction = noise(2, 1, 1, 8, 8).double()
    step = 1e-5
    with torch.no_grad():
        slope = (unet(x + step * direction, timestep) - unet(x - step * direction, timestep)).sum() / (2 * step)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(unet(x, timestep).sum(), x)
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-4)


@pytest.mark.parametrize("other", [2, 50, 1000])
def test_timestep_changes_the_output(other):
    unet, x = randomised(fresh()), noise(1, 1, 8, 8)
    assert differ(predict(unet, x, 1), predict(unet, x, other))


@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("block", ["block1", "block2"])
def test_every_residual_block_listens_to_the_timestep(number, block):
    module = randomised(getattr(fresh().layers[str(number)], block))
    x, (early, late) = noise(1, module.conv1.in_channels, 4, 4), noise(2, 1, module.time.in_features)
    assert differ(module(x, early), module(x, late))


def test_neighbouring_timesteps_have_embeddings_of_their_own():
    embedded = TimeEmbedding(8, 32)(torch.arange(1, 1001), torch.float32).detach()
    assert torch.cdist(embedded, embedded).fill_diagonal_(1).min() > 1e-4


def test_samples_do_not_see_each_other():
    unet, x, timesteps = randomised(fresh()), noise(3, 1, 8, 8), (1, 30, 900)
    alone = [predict(unet, x[i : i + 1], timesteps[i]) for i in range(3)]
    torch.testing.assert_close(predict(unet, x, *timesteps), torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_dropout_acts_in_training_only():
    unet, x = randomised(fresh()), noise(1, 1, 8, 8)
    assert torch.equal(predict(unet, x, 5), predict(unet, x, 5))
    unet.train()
    assert differ(predict(unet, x, 5), predict(unet, x, 5))


@pytest.mark.parametrize("number", ["1", "2", "3"])
@pytest.mark.parametrize("path", ["resampled", "skip"])
def test_layers_on_the_way_down_speak_through_both_of_their_outputs(number, path):
    unet, x = randomised(fresh()), noise(1, 1, 16, 16)
    before = predict(unet, x, 5)

    def disturb(module, inputs, outputs):
        resampled, skip = outputs
        added = noise(*(resampled if path == "resampled" else skip).shape)
        return (resampled + added, skip) if path == "resampled" else (resampled, skip + added)

    unet.layers[number].register_forward_hook(disturb)
    assert differ(predict(unet, x, 5), before)


def test_attention_is_multi_head_self_attention_over_the_pixels():
    attention = randomised(Attention(8, heads=4))
    standard = nn.MultiheadAttention(8, 4, batch_first=True)
    standard.load_state_dict(
        {
            "in_proj_weight": attention.qkv.weight,
            "in_proj_bias": attention.qkv.bias,
            "out_proj.weight": attention.out.weight,
            "out_proj.bias": attention.out.bias,
        }
    )
    x = noise(2, 8, 3, 5)
    tokens = attention.norm(x).flatten(2).transpose(1, 2)
    expected = x + standard(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(attention(x), expected, rtol=1e-5, atol=1e-5)


@steady
@given(st.integers(1, 128).map(lambda quarter: 4 * quarter))
def test_groups_divide_the_channels_and_hold_at_least_four(channels):
    groups = group_norm(channels).num_groups
    assert channels % groups == 0
    assert channels // groups >= 4
    assert groups <= 32


def test_every_parameter_of_a_layer_is_in_its_group():
    unet = outline(SMALL)
    for number, layer in unet.layers.items():
        names = [f"layers.{number}.{name}" for name, _ in layer.named_parameters()]
        assert {group_of(name) for name in names} == {number}
    assert groups(SMALL) == list(unet.layers) == list("123456")
    outside = {name for name, _ in unet.named_parameters() if group_of(name) is None}
    assert {name.split(".")[0] for name in outside} == {"time_embedding", "conv_in", "conv_late", "conv_out"}


@pytest.mark.parametrize("image", [(1, 12, 8), (1, 8, 4), (3, 33, 32)])
def test_images_that_cannot_be_halved_three_times_are_refused(image):
    with pytest.raises(ValueError, match=r"allowed is \[C, H, W\] with H and W multiples of 8"):
        build(SMALL, image)


def test_state_holds_parameters_only():
    unet = outline(SMALL)
    assert list(unet.state_dict()) == [name for name, _ in unet.named_parameters()]
