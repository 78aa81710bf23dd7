"""Normalising flows on whitened images: GLOW and the conditional INN."""
