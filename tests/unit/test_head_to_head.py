"""The head to head's page, and the network that it trains."""

import torch

import head_page
from train_digits_unet2d import CONFIG, UNet2DModel, network

SIZES = {"bytes": 100_000, "resident_bytes": 110_000, "seconds": 2.0, "times_fp32": 1.5, "noise_mse": 1e-4}
CELLS = {"cells": {"median PSNR": "30.0 dB", "FID − FP32": "+0.10", "all": "[+0.00, +0.20]", "verdict": "same"}}
EXPORT = {"file_bytes": 120_000, "resident_bytes": 105_000, "largest_change": 0.0, "largest_step": 0}
RESULTS = {
    "name": "a machine",
    "versions": {"sdnq": "0.2.8"},
    "threads": 1,
    "images": 90,
    "run_seconds": 5.0,
    "dead_positions": {"side": 8, "parameters": 4e5, "bytes": 100, "whole_bytes": 150, "exported_bytes": 160},
    "networks": [
        {
            "title": "a network",
            "parameters": 3e5,
            "bytes": 400_000,
            "fid": {"mean": 1.0, "low": 0.5, "high": 1.5},
            "rows": [
                {"case": "A", "error": "ValueError: no such groups"},
                {"case": "B"} | SIZES | CELLS,
                {"case": "C"} | SIZES | CELLS,
                {"case": "laqfi, bytes of B"} | SIZES | CELLS | {"exported": EXPORT},
                {"case": "laqfi, bytes of C"} | SIZES | CELLS,
            ],
        }
    ],
}


def test_laqfi_stands_below_each_whose_bytes_it_has_and_a_failure_says_why():
    page = head_page.page(RESULTS)
    rows = [line.split(" | ")[0].removeprefix("| ") for line in page.split("Exported")[0].splitlines() if "| " in line]
    assert rows[2:] == ["A", "B", "laqfi, bytes of B", "C", "laqfi, bytes of C"]
    assert "ValueError: no such groups" in page
    assert "| 100.0 kB | 4.00 × | 110.0 kB | 1.0e-04 | 30.0 dB |" in page
    assert "| 2.0 | 1.50 |" in page


def test_exports_and_dead_positions_are_told():
    page = head_page.page(RESULTS)
    assert "| 100.0 kB | 120.0 kB | 105.0 kB | 1.050 | 0.0e+00 | 0 |" in page
    assert "exported the first takes 0.2 kB, 1.60 × as much." in page


def test_timesteps_of_the_trained_network_begin_at_one():
    torch.manual_seed(0)
    model, plain = network().eval(), UNet2DModel(**CONFIG).eval()
    plain.load_state_dict(model.state_dict())
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(model(x, torch.tensor([1, 1000])), plain(x, torch.tensor([0, 999])).sample)
