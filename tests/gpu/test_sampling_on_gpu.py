"""Images drawn on a GPU: stored weights, precisions, batches; and rounding that compensates."""

import itertools
import math

import pytest
import torch

from bench import FILES, Scale, write_files
from laqfi.diffusion.process import linear_alphas_cumprod
from laqfi.models.unet import UNet, Unet
from laqfi.quality.fidelity import squared_errors
from laqfi.quant.gptq import gptq_codes
from laqfi.sampling.drawing import draw_images
from laqfi.sampling.network import WORTH_COMPILING, prepared
from laqfi.sampling.params import Drawing
from laqfi.sensitivity.compensation import Compensation
from laqfi.sensitivity.curvature import compensations
from laqfi.sensitivity.fisher import fisher_maps
from laqfi.storage.model_file import read_model

SCALE = Scale(Unet(family="unet", base_channels=32, attention=[2, 6], heads=2, dropout=0.1), side=16)
DRAWING = Drawing(sampler="ddim", steps=10, eta=0.0, clip=True, seeds=[0, 1], batch_size=64, precision="float32")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The same random network in every format, with `alphas_cumprod`."""
    folder = tmp_path_factory.mktemp("models")
    write_files(folder, SCALE)
    return {name: read_model(folder / f"{name}.safetensors", torch.device("cuda"))[:2] for name in FILES}


def psnr(images, originals) -> float:
    """Of all images together, in dB; infinite where they are equal."""
    error = squared_errors(images, originals).sum() / images.size
    return 10 * math.log10(255**2 / error) if error else math.inf


def drawn(model, images: int = 64, **changes):
    return draw_images(*model, (1, 16, 16), DRAWING.model_copy(update=changes), images, progress=False)


@pytest.mark.parametrize("evaluations", [1, WORTH_COMPILING])
@pytest.mark.parametrize("name", FILES)
def test_a_prepared_network_computes_what_the_stored_one_does(models, name, evaluations):
    model, _ = models[name]
    x, timestep = torch.randn(8, 1, 16, 16, device="cuda"), torch.linspace(1, 1000, 8, device="cuda").long()
    with torch.inference_mode():
        wanted = model(x, timestep)
        torch.testing.assert_close(prepared(model, "float32", evaluations)(x, timestep), wanted, rtol=1e-3, atol=1e-4)
        in_half = prepared(model, "float16", evaluations)(x, timestep)
    assert in_half.dtype == torch.float32
    assert 0 < ((in_half - wanted).square().mean() / wanted.square().mean()).sqrt() < 0.01


@pytest.mark.parametrize("evaluations", [1, WORTH_COMPILING])
def test_a_prepared_network_takes_other_inputs_and_other_sizes(models, evaluations):
    """Replays of one graph see what they are given, and a batch of another size gets its own."""
    model, _ = models["int8"]
    network = prepared(model, "tf32", evaluations)
    with torch.inference_mode():
        for batch, t in itertools.product((8, 3), (1, 500, 1000)):
            x, timestep = torch.randn(batch, 1, 16, 16, device="cuda"), torch.full((batch,), t, device="cuda")
            torch.testing.assert_close(network(x, timestep), model(x, timestep), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("worth", [1, WORTH_COMPILING])
@pytest.mark.parametrize("precision", ["float32", "tf32", "float16"])
def test_images_are_the_same_twice_and_do_not_depend_on_their_batch(models, precision, worth, monkeypatch):
    monkeypatch.setattr("laqfi.sampling.network.WORTH_COMPILING", worth)
    images = drawn(models["float32"], precision=precision)
    assert (images == drawn(models["float32"], precision=precision)).all()
    in_parts = drawn(models["float32"], precision=precision, batch_size=24)
    assert psnr(in_parts, images) > 45


def test_half_precision_draws_nearly_what_float32_does(models):
    images = drawn(models["float32"])
    assert psnr(drawn(models["float32"], precision="float16"), images) > 50
    assert psnr(drawn(models["float32"], precision="tf32"), images) > 50


def test_tf32_is_off_when_the_images_are_drawn(models):
    drawn(models["float32"], images=2, precision="tf32")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("columns", [100, 576, 1100])
def test_gptq_on_a_gpu_gives_the_codes_of_the_cpu(columns):
    """But for weights midway between two codes, by the order of sums."""
    torch.manual_seed(columns)
    root = torch.randn(columns // 2, columns)
    matrix, curvature = torch.randn(48, columns), root.T @ root / columns
    scale, zero_point = torch.full((48, columns), 0.5), torch.full((48, columns), 8.0)
    order, feedback = Compensation.of(curvature).unpacked(torch.arange(columns), torch.device("cpu"))
    problem = matrix, order, feedback, scale, zero_point
    on_cpu = gptq_codes(*problem, 16)
    for _ in range(2):  # the graphs of the first are replayed in the second
        found = gptq_codes(*(tensor.cuda() for tensor in problem), 16).cpu()
        assert (found != on_cpu).float().mean() < 0.01
        costs = [
            (delta @ curvature * delta).sum().item() for delta in (0.5 * (c - 8) - matrix for c in (found, on_cpu))
        ]
        assert costs[0] == pytest.approx(costs[1], rel=0.01)


@pytest.fixture
def to_measure():
    """A network, and all that its measuring takes but the timesteps and where it is done."""
    torch.manual_seed(0)
    model = UNet(SCALE.unet, image_channels=1).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model, torch.rand(4, 1, 16, 16) * 2 - 1, linear_alphas_cumprod(1000, 1e-4, 0.02)


def test_a_curvature_measured_on_a_gpu_compensates_as_one_of_the_cpu_does(to_measure):
    model, *rest = to_measure
    settings = {"timesteps": [1, 500], "chunk": 2, "seed": 0}
    on_cpu = dict(compensations(model, *rest, **settings))
    for name, found in compensations(model.cuda(), *rest, **settings):
        torch.testing.assert_close(found.pivots.sum(), on_cpu[name].pivots.sum(), rtol=1e-2, atol=0)


def test_fisher_information_measured_on_a_gpu_is_that_of_the_cpu(to_measure):
    model, *rest = to_measure
    settings = {"timesteps": [1, 500], "bins": [1, 1000], "chunk": 2, "seed": 0}
    on_cpu = fisher_maps(model, *rest, **settings)
    found = fisher_maps(model.cuda(), *rest, **settings)
    for name, wanted in on_cpu.per_weight.items():
        torch.testing.assert_close(found.per_weight[name], wanted, rtol=1e-2, atol=1e-3 * wanted.max().item())
