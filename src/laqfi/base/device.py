"""Where tensors live, the first GPU if there is one, else the CPU; and how a GPU is kept busy and repeatable."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

CACHE = Path(".cache/inductor")  # what was compiled, for the processes to come; ignored by git and the engines
WARM_UPS = 3  # calls before a capture: they compile, choose algorithms and take their memory

Function = Callable[..., Tensor]


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def allow_tf32(allowed: bool) -> None:
    """PyTorch allows TF32 for convolutions on a GPU: faster, with 10 bits, which are those of a float16 weight."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


@contextmanager
def tf32(wanted: bool) -> Iterator[None]:
    """While open, products on a GPU are of factors with 10 bits of mantissa; a CPU's stay as they are."""
    allow_tf32(wanted)
    try:
        yield
    finally:
        allow_tf32(False)


def settle() -> None:
    """What every stage begins with: products in float32 with all its bits, and on a GPU the same bytes twice.

    An operation that has no such algorithm on a GPU warns and goes on. A CPU needs nothing of this.
    """
    allow_tf32(False)
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the library is first used
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        torch.utils.deterministic.fill_uninitialized_memory = False
        torch.use_deterministic_algorithms(True, warn_only=True)


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """On a GPU an operation without a deterministic algorithm raises RuntimeError; attention takes its own only so."""
    if device.type != "cuda":
        yield
        return
    settle()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)


def compiled(network: nn.Module) -> nn.Module:
    """`network` for a GPU, one kernel for what stands between two convolutions; later processes find it in `CACHE`.

    All activations are channels-last, as tensor cores want them: left to itself, PyTorch refuses to for a network with
    a convolution that halves the channels, and each convolution then copies what it is given.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(CACHE.absolute()))
    return torch.compile(network, dynamic=False, options={"force_layout_optimization": True})


class Captured:
    """A function of tensors on a GPU, captured in a CUDA graph for every shape it is called with, and then replayed.

    The processor then starts one graph in place of hundreds of kernels. What a call returns is overwritten by the next
    call of the same shape. The function must do all its work on the GPU and read nothing back.
    """

    def __init__(self, function: Function):
        self.function = function
        self.graphs: dict[tuple, tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]] = {}

    def __call__(self, *tensors: Tensor) -> Tensor:
        key = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        if key not in self.graphs:
            self.graphs[key] = self.capture(tensors)
        graph, inputs, result = self.graphs[key]
        for place, tensor in zip(inputs, tensors, strict=True):
            place.copy_(tensor)
        graph.replay()
        return result

    def capture(self, tensors: tuple[Tensor, ...]) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]:
        inputs = tuple(tensor.clone() for tensor in tensors)
        random = torch.cuda.get_rng_state()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                self.function(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self.function(*inputs)
        torch.cuda.set_rng_state(random)  # what the warm-ups drew from it is to be drawn by the first replay
        return graph, inputs, result


def captured(function: Function, device: torch.device) -> Function:
    """`function`, on a GPU in CUDA graphs."""
    return Captured(function) if device.type == "cuda" else function


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`, without waiting for what a GPU is doing."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
