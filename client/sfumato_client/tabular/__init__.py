"""Tables by CADP (arXiv 2207.14625) or noisy marginals (arXiv 2108.04978): rows with a formal guarantee."""
