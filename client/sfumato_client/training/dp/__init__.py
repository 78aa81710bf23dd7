"""DP-SGD: per-record clipping engines, Poisson batches of patients, the noisy step."""
