"""Sums over sites of which nobody sees a part: keys, shares, masks and lists (Bonawitz et al. 2017); no I/O."""
