"""Samplers, and images drawn with them."""
