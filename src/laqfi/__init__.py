"""Layer-adaptive quantization of diffusion models with Fisher information."""
