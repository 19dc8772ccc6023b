"""Networks quantized by SDNQ and by optimum-quanto, in place."""

import os
from collections.abc import Callable

from torch import nn

from bench import WithoutInferenceMode, pack_with_quanto
from laqfi.diffusion.process import Denoiser

Quantizer = Callable[[nn.Module], Denoiser]
# Else SDNQ leaves out what is small, which in networks of this size is nearly all.
EVERY_LAYER = {
    "quant_conv": True,
    "quant_embedding": True,
    "minimum_allowed_numel": 1,
    "minimum_allowed_channel_size": 1,
    "add_skip_keys": False,
    "use_quantized_matmul": False,
}


def sdnq(kind: str, **options) -> Quantizer:
    def quantize(model: nn.Module) -> Denoiser:
        os.environ["SDNQ_USE_TORCH_COMPILE"] = "0"  # read when it is imported: else it compiles for half a minute
        from sdnq import sdnq_post_load_quant

        return sdnq_post_load_quant(model, weights_dtype=kind, **EVERY_LAYER, **options)

    return quantize


def quanto(kind: str) -> Quantizer:
    def quantize(model: nn.Module) -> Denoiser:
        pack_with_quanto(model, kind)
        return WithoutInferenceMode(model)

    return quantize


PER_CHANNEL = {"group_size": -1}  # its own choice of groups fails on some layers, transposed convolutions among them
DYNAMIC = PER_CHANNEL | {"use_dynamic_quantization": True}  # the fewest bits, from `kind` on, of a small enough error
RIVALS: dict[str, Quantizer] = {
    "SDNQ uint4": sdnq("uint4"),
    "SDNQ uint4, a scale per channel": sdnq("uint4", **PER_CHANNEL),
    "SDNQ int8": sdnq("int8"),
    "SDNQ dynamic from uint2": sdnq("uint2", **DYNAMIC),
    "SDNQ dynamic from uint2, error 0.001": sdnq("uint2", **DYNAMIC, dynamic_loss_threshold=0.001),
    "quanto qint4": quanto("qint4"),
    "quanto qint8": quanto("qint8"),
}
