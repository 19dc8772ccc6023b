"""A U-Net of diffusers that predicts the noise, whatever its output stands for.

Loaded only where such a network is built: diffusers takes seconds to load.
"""

import torch
from diffusers import UNet2DModel
from torch import Tensor

from laqfi.models import scheduler


class NoiseUNet(UNet2DModel):
    """`UNet2DModel` called as model(x, timestep), x [B, C, H, W], timestep [B] from 1 to T.

    Its parameters have the names that diffusers gives them. While `raw` is set, it returns what diffusers itself would,
    which a scheduler steps from. `label` is the class of all images, None for a network without classes.
    """

    raw = False
    dtype = torch.float32  # what diffusers asks for, which would go by the first stored tensor

    def adapt(self, config: dict, label: int | None) -> "NoiseUNet":
        """To the config of its scheduler, which says what the output is."""
        self.label, self.prediction = label, scheduler.prediction_type(config)
        # A plain attribute: a buffer would be one of the tensors to store, and have no values on the device "meta".
        self.tables = {torch.device("cpu"): scheduler.alphas_cumprod(config)}
        return self

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        labels = None if self.label is None else torch.full((len(x),), self.label, device=x.device)
        output = super().forward(x, timestep - 1, class_labels=labels, return_dict=False)[0]
        return output if self.raw else self.noise_in(output[:, : x.shape[1]], x, timestep)

    def noise_in(self, output: Tensor, x: Tensor, timestep: Tensor) -> Tensor:
        """ε of x_t = √ᾱ x_0 + √(1 − ᾱ) ε, from what the network predicts (Salimans and Ho 2022, appendix D)."""
        if self.prediction == "epsilon":
            return output
        alpha_bar = self.table(x.device)[timestep].view(-1, 1, 1, 1)
        signal, noise = alpha_bar.sqrt().to(x.dtype), (1 - alpha_bar).sqrt().to(x.dtype)
        if self.prediction == "sample":
            return (x - signal * output) / noise
        return noise * x + signal * output

    def table(self, device: torch.device) -> Tensor:
        if device not in self.tables:
            self.tables[device] = self.tables[torch.device("cpu")].to(device)
        return self.tables[device]
