"""A U-Net of diffusers that predicts the noise, whatever its output stands for.

Loaded only where such a network is built: diffusers takes seconds to load.
"""

import torch
from diffusers import UNet2DModel
from torch import Tensor

from laqfi.models.prediction import NoiseIn


class NoiseUNet(UNet2DModel):
    """`UNet2DModel` called as model(x, timestep), x [B, C, H, W], timestep [B] from 1 to T.

    Its parameters have the names that diffusers gives them. While `raw` is set, it returns what diffusers itself would,
    which a scheduler steps from. `label` is the class of all images, None for a network without classes.
    """

    raw = False
    dtype = torch.float32  # what diffusers asks for, which would go by the first stored tensor

    def adapt(self, config: dict, label: int | None) -> "NoiseUNet":
        """To the config of its scheduler, which says what the output is."""
        self.label, self.noise_in = label, NoiseIn(config)
        return self

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        labels = None if self.label is None else torch.full((len(x),), self.label, device=x.device)
        output = super().forward(x, timestep - 1, class_labels=labels, return_dict=False)[0]
        return output if self.raw else self.noise_in(output, x, timestep)
