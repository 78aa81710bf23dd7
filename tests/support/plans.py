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


def small_plan(*later: dict, released: str, sites: dict[str, int], epsilon: float = 10.0, noise: float = 0.1) -> dict:
    """Values of a plan of 16 px: a spectral stage of that noise, `later` stages, four images of one model.

    `sites` are nominal patients by name.
    """
    spectral = {"kind": "spectral", "bandwidth": 4, "clip_radius": 3.0, "noise_multiplier": noise}
    return {
        "study": "small",
        "image": {"size": 16},
        "labels": ["normal", "opacity"],
        "sites": {name: {"nominal_patients": patients} for name, patients in sites.items()},
        "privacy": {"epsilon": epsilon, "delta": 1e-5},
        "stages": [spectral, *later],
        "release": [{"model": released, "images": 4}],
        "federation": {"quorum": 1},
    }
