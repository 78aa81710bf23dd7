"""The embedding release: mean features, once, and the generator that is fitted to them."""
