"""Who belongs to the federation: CA, signed site certificates, node registration."""
