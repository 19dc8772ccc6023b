"""Images to features: the frozen classifier, Inception of pytorch-fid or EfficientNet, from one kind of file."""

import hashlib
import os
import pickle
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.hub import download_url_to_file

from laqfi.base import files
from laqfi.base.errors import LaqfiError
from laqfi.base.pictures import from_uint8
from laqfi.quality import efficientnet
from laqfi.quality.classifier import FeatureNet

WEIGHTS = "LAQFI_INCEPTION_WEIGHTS"
Extractor = Callable[[np.ndarray], np.ndarray]


def fetch_inception(sha256: str, folder: Path) -> dict[str, Tensor]:
    """State of pytorch-fid's network from the file in LAQFI_INCEPTION_WEIGHTS, or from its download.

    Raises LaqfiError if it cannot be had, or its SHA-256 is not `sha256`. The published file is a pickle: it is
    read only once its bytes are known to be the expected ones, and then by PyTorch's weights-only reader.
    """
    from pytorch_fid.inception import FID_WEIGHTS_URL

    path = Path(os.environ.get(WEIGHTS) or folder / "inception.pth")
    if not os.environ.get(WEIGHTS):
        try:
            download_url_to_file(FID_WEIGHTS_URL, str(path))
        except OSError as error:
            raise LaqfiError(
                f"features: the Inception weights could not be downloaded ({error}); set {WEIGHTS} to the file"
            ) from error
    payload = files.read_bytes(path)
    found = hashlib.sha256(payload).hexdigest()
    if found != sha256:
        raise LaqfiError(f"{path}: SHA-256 is {found}, allowed is features.sha256 = {sha256}")
    try:
        state = torch.load(BytesIO(payload), map_location="cpu", weights_only=True)
        inception_network(state)
    except (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, TypeError) as error:
        raise LaqfiError(f"{path}: not the weights of pytorch-fid's Inception ({first_line(error)})") from error
    return state


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def inception_network(state: dict[str, Tensor]) -> nn.Module:
    """pytorch-fid's network up to the 2048-d pool. Its constructor downloads, so it is handed `state` instead."""
    from pytorch_fid import inception  # seconds to import, which the classifier's users need not wait for

    with mock.patch.object(inception, "load_state_dict_from_url", return_value=state):
        return inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()


def classifier(state: dict[str, Tensor], metadata: dict, path: Path) -> FeatureNet:
    """The network of a features file; no memory is taken before its metadata and its tensors are known to agree."""
    sizes = [*metadata["image"], metadata.get("classes")] if isinstance(metadata.get("image"), list) else []
    if len(sizes) != 3 or not all(type(size) is int and 0 < size <= 4096 for size in sizes):
        raise LaqfiError(f"{path}: image and classes are no sizes of a classifier: {sizes or metadata.get('image')!r}")
    with torch.device("meta"):
        network = FeatureNet(*sizes).eval()
    files.check_tensors(path, state, {name: (t.dtype, tuple(t.shape)) for name, t in network.state_dict().items()})
    network.load_state_dict(state, assign=True)
    return network


def load(path: Path, device: torch.device) -> list[Extractor]:
    """The frozen networks of a features file, each from uint8 [N, C, H, W] to float64 [N, D]."""
    tensors, metadata = files.read_tensors(path)
    states: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        place, _, rest = name.partition(".")
        states.setdefault(place, {})[rest] = tensor
    if list(states) != [str(place) for place in range(len(states))] or not states:
        raise LaqfiError(
            f"{path}: holds the networks {list(states)}, allowed are 0, 1, … by the beginning of each name"
        )
    return [extractor(state, metadata, path, device) for state in states.values()]


def extractor(
    state: dict[str, Tensor], metadata: dict, path: Path, device: torch.device, batch_size: int = 500
) -> Extractor:
    size = None  # Inception and EfficientNet take any
    if metadata.get("network") == "inception":
        try:
            files.check_tensors(path, state, {name: (t.dtype, tuple(t.shape)) for name, t in state.items()})
            pool = inception_network(state).to(device)
        except (RuntimeError, AttributeError, TypeError) as error:
            raise LaqfiError(f"{path}: not the weights of pytorch-fid's Inception ({first_line(error)})") from error

        def forward(x: Tensor) -> Tensor:
            return pool(((x + 1) / 2).expand(-1, 3, -1, -1))[0].flatten(1)

    elif metadata.get("network") == "efficientnet_lite0":
        forward = partial(efficientnet.features, efficientnet.network(state, path).to(device))
        batch_size = efficientnet.BATCH

    elif metadata.get("network") == "classifier":
        network = classifier(state, metadata, path).to(device)
        channels, side = metadata["image"]
        forward, size = network.features, (channels, side, side)
    else:
        allowed = "classifier, inception or efficientnet_lite0"
        raise LaqfiError(f"{path}: network is {metadata.get('network')!r}, allowed is {allowed}")

    @torch.inference_mode()
    def extract(images: np.ndarray) -> np.ndarray:
        if size not in (None, images.shape[1:]):
            raise LaqfiError(f"{path}: the network is for images {size}, found {images.shape[1:]}")
        batches = from_uint8(images).split(batch_size)
        return np.concatenate([forward(batch.to(device)).double().cpu().numpy() for batch in batches])

    return extract
