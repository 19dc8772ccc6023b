"""Where tensors live: the first GPU if there is one, else the CPU."""

import torch


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def allow_tf32(allowed: bool) -> None:
    """PyTorch allows TF32 for convolutions on a GPU: faster, with 10 bits, which are those of a float16 weight."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
