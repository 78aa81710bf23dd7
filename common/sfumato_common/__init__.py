"""What coordinator and sites share; imports neither."""

__version__ = "0.1.0"
