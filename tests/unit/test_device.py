"""Where there is no GPU, nothing of what keeps one busy happens."""

import pytest
import torch

from laqfi.base import device
from laqfi.sampling.network import prepared

CPU = torch.device("cpu")
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")


def test_on_a_cpu_a_captured_function_is_the_function_and_a_tensor_stays_where_it_is():
    tensor = torch.zeros(3)
    assert device.captured(torch.sin, CPU) is torch.sin
    assert device.upload(tensor, CPU) is tensor


@needs_no_gpu
@pytest.mark.parametrize("precision", ["float32", "tf32", "float16"])
def test_on_a_cpu_images_are_drawn_by_the_network_itself(unet, precision):
    """In float32, whatever products on a GPU are made in: the bytes of a profile do not depend on its precision."""
    assert prepared(unet, precision, evaluations=10**9) is unet


@needs_no_gpu
def test_on_a_cpu_settling_leaves_the_algorithms_as_they_are():
    device.settle()
    with device.deterministic(CPU):
        assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cuda.matmul.allow_tf32
