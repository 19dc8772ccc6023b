"""Figures of a run; each function makes one."""
