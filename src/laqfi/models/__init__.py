"""Families of networks that predict the noise, one file each."""
