"""Parts of study plans as plain data, to be changed by a test."""

DP_SGD = {
    "rounds": 1,
    "local_steps": 2,
    "sampling_rate": 0.2,
    "clipping_norm": 1.0,
    "noise_multiplier": 1.0,
    "learning_rate": 1e-3,
}


def dp_sgd(**terms) -> dict:
    """The terms of a small DP-SGD stage, and whatever else is said of it: its kind, its sizes, other terms."""
    return {**DP_SGD, **terms}
