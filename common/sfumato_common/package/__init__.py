"""The signed release package: bytes in, bytes out."""
