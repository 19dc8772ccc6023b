"""A U-Net of diffusers that predicts the noise, whatever its output stands for.

Loaded only where such a network is built: diffusers takes seconds to load.
"""

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn

from laqfi.models.prediction import NoiseIn


class PredictsNoise(nn.Module):
    """A U-Net of diffusers called as model(x, timestep), x [B, C, H, W], timestep [B] from 1 to T.

    Its parameters have the names that diffusers gives them. While `raw` is set, it returns what diffusers itself would,
    which a scheduler steps from. `label` is the class of all images, None for a network without classes. The buffer
    `encoder_hidden_states` [tokens, width] holds the embeddings of all images, None for a network that is given none.
    """

    raw = False
    dtype = torch.float32  # what diffusers asks for, which would go by the first stored tensor

    def adapt(self, config: dict, label: int | None, embeddings: tuple[int, int] | None = None) -> "PredictsNoise":
        """To the config of its scheduler, which says what the output is, and to embeddings of this shape."""
        self.label, self.noise_in = label, NoiseIn(config)
        self.register_buffer("encoder_hidden_states", None if embeddings is None else torch.zeros(embeddings))
        return self

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        output = super().forward(x, timestep - 1, **self.given(x), return_dict=False)[0]
        return output if self.raw else self.noise_in(output, x, timestep)

    def given(self, x: Tensor) -> dict[str, Tensor]:
        """What the network is called with beside images and timesteps."""
        found = {} if self.label is None else {"class_labels": torch.full((len(x),), self.label, device=x.device)}
        if self.encoder_hidden_states is not None:
            found["encoder_hidden_states"] = self.encoder_hidden_states.expand(len(x), -1, -1)
        return found


class NoiseUNet(PredictsNoise, UNet2DModel):
    """Of images alone, or with classes."""


class ConditionalNoiseUNet(PredictsNoise, UNet2DConditionModel):
    """With embeddings."""


NETWORKS = {"UNet2DModel": NoiseUNet, "UNet2DConditionModel": ConditionalNoiseUNet}
