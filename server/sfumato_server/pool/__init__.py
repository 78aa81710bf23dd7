"""Admitted packages only, put together."""
