"""The spectral release: class-conditional moments of DCT coefficients, once, and the Gaussian model that they give."""
