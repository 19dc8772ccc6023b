"""Recovery on a GPU: in graphs, killed, and without waiting for what it computes."""

import pytest
import torch
from killed import dying_clock, unequal

from bench import Scale, write_files
from laqfi.models.unet import Unet
from laqfi.quant.calibration import CalibrationSet
from laqfi.quant.fitted import network_of
from laqfi.quant.recipe import Recover
from laqfi.quant.recovered import learning_network
from laqfi.quant.recovery import Recovery, draws, recover
from laqfi.storage.stored_file import read_stored

SCALE = Scale(Unet(family="unet", base_channels=32, attention=[2, 6], heads=2, dropout=0.1), side=16)
SETTINGS = Recover(iterations=24, batch_size=8)
OVER = 20_000  # bytes, of a limit that the codes are above


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_files(folder, SCALE)
    return folder


@pytest.fixture
def recovery(folder, alphas_cumprod):
    """Makes the recovery of a random network in int3 to int6, always the same."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(64, 1, 16, 16, generator=random) * 2 - 1
    found = CalibrationSet(torch.randn(2, 8, 1, 16, 16, generator=random), [90, 10])

    def make() -> Recovery:
        path = folder / "mixed.safetensors"
        student, learned = learning_network(read_stored(path), SETTINGS, path)
        teacher = network_of(*read_stored(folder / "float32.safetensors"), path)
        both = draws(SETTINGS, images, alphas_cumprod.float(), found)
        return Recovery(student, teacher, learned, both, SETTINGS, over=lambda: OVER, price=1e-3)

    return make


def test_an_iteration_in_a_graph_is_the_iteration_without(recovery):
    captured, plain = recovery(), recovery()
    plain.gradients = plain.loss_and_gradients
    losses = [[one.advance().item() for _ in range(8)] for one in (captured, plain)]
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 8, "every iteration has images of its own"
    assert unequal(captured, plain) == []


def test_an_iteration_reads_nothing_back(recovery):
    run = recovery()
    run.advance()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            run.advance()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert run.step == 4


def test_a_killed_recovery_goes_on_to_the_same_bytes(recovery, tmp_path):
    straight, killed, resumed = recovery(), recovery(), recovery()
    recover(straight, tmp_path / "straight.safetensors")
    with pytest.raises(KeyboardInterrupt):
        recover(killed, tmp_path / "state.safetensors", save_every=0, clock=dying_clock())
    assert (tmp_path / "state.safetensors").exists()
    recover(resumed, tmp_path / "state.safetensors")
    assert unequal(straight, resumed) == []
    assert not torch.backends.cudnn.allow_tf32
