"""Models, one idea a file. `build.MODELS` is the table of what stages train beside the spectral release."""
