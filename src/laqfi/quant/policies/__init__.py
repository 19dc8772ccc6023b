"""Policies: which tensor is stored in which format, and why; one file per family of them."""
