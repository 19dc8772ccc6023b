"""The diffusion process, and training of the network that reverses it."""
