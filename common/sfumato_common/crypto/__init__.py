"""Identities, certificates and signatures."""
