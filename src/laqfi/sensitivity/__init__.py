"""What is measured of a model: Fisher information and curvature."""
