"""Diffusion models, their noise process, decoders and denoisers."""
