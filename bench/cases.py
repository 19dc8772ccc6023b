"""What is measured: networks, how much work, and the cases."""

from dataclasses import dataclass

from laqfi.models.unet import Unet

# One model file per format of the matrices; "mixed" is what a budget gives: each matrix in one of several formats.
FILES = ("float32", "float16", "int8", "int4", "mixed")
MIXED = ("int3", "int4", "int6")


@dataclass(frozen=True)
class Scale:
    """A network and the side of its square images."""

    unet: Unet
    side: int


@dataclass(frozen=True)
class Work:
    """How many images, of how many steps of DDIM, how often; `compared` images are held against FP32's prediction."""

    batch: int
    alone: int  # images the loop draws one at a time
    steps: int
    repeats: int
    compared: int


SCALES = {
    "paper": Scale(Unet(family="unet", base_channels=64, attention=[2, 6], heads=4, dropout=0.1), side=32),
    "quick": Scale(Unet(family="unet", base_channels=8, attention=[2, 6], heads=1, dropout=0.1), side=8),
}
WORK = {
    ("paper", "cpu"): Work(batch=64, alone=16, steps=1, repeats=3, compared=8),
    ("quick", "cpu"): Work(batch=180, alone=16, steps=20, repeats=5, compared=180),
    ("paper", "cuda"): Work(batch=64, alone=4, steps=20, repeats=5, compared=64),
    ("quick", "cuda"): Work(batch=180, alone=4, steps=20, repeats=5, compared=180),
}


@dataclass(frozen=True)
class Case:
    """`precision`: drawn as the stage does on a GPU, restored, compiled and in CUDA graphs; None: layer by layer."""

    file: str
    quanto: str | None = None  # optimum-quanto's name of the weights' type
    compiled: bool = False
    alone: bool = False
    precision: str | None = None
    aside: str | None = None  # one of aside.WAYS
    diffusers: str | None = None  # in place of all this a DDIMPipeline of diffusers, its U-Net in this dtype
    work: Work | None = None  # None: that of the scale and device


CASES = {
    "fp32": Case("float32"),
    "fp16": Case("float16"),
    "int8": Case("int8"),
    "int4": Case("int4"),
    "quanto qint8": Case("float32", quanto="qint8"),
    "quanto qint4": Case("float32", quanto="qint4"),
    "fp32, one image at a time": Case("float32", alone=True),
}
COMPILED = {  # on a GPU, at paper scale: each layer restores its weight in every step, fused with what stands around it
    "fp32, compiled": Case("float32", compiled=True),
    "int8, compiled": Case("int8", compiled=True),
    "int4, compiled": Case("int4", compiled=True),
}
LARGE = Work(batch=1000, alone=1, steps=5, repeats=3, compared=1000)
MIDDLE = Work(batch=64, alone=1, steps=50, repeats=3, compared=64)
SINGLE = Work(batch=1, alone=1, steps=200, repeats=3, compared=1)
DRAWN = {  # on a GPU, at paper scale
    f"{name}, drawn in {precision} by {work.batch}": Case(file, precision=precision, work=work)
    for name, file, precision, work in (
        ("fp32", "float32", "float32", LARGE),
        ("fp32", "float32", "tf32", LARGE),
        ("fp32", "float32", "float16", LARGE),
        ("int8", "int8", "float16", LARGE),
        ("int4", "int4", "float16", LARGE),
        ("int3 to int6", "mixed", "float16", LARGE),
        ("fp32", "float32", "float16", MIDDLE),
        ("int4", "int4", "float16", MIDDLE),
        ("fp32", "float32", "float16", SINGLE),
        ("int4", "int4", "float16", SINGLE),
    )
}
ASIDE = {  # on a GPU, at paper scale: what is measured beside it
    **{
        f"fp32, aside in {way} by {work.batch}": Case("float32", aside=way, work=work)
        for way, work in (
            ("bf16", LARGE),
            ("bf16", MIDDLE),
            ("float32, NCHW", LARGE),
            ("float32, NCHW, eager", LARGE),
        )
    },
    **{
        f"diffusers, {dtype} by {work.batch}": Case("float32", diffusers=dtype, work=work)
        for dtype, work in (
            ("float32", LARGE),
            ("float16", LARGE),
            ("bfloat16", LARGE),
            ("float16", MIDDLE),
            ("float16", SINGLE),
        )
    },
}
