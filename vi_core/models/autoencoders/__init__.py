"""Latent-variable models of images, with a decoder network."""
