"""Latent spaces that methods walk in: how images become codes, and codes images."""
