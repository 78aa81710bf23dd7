"""Identities, certificates and signatures of sites and coordinator."""
