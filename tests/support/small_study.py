"""A small study of one site, as plain data: a spectral release and a flow of three rounds."""

from support.plans import dp_sgd

VALUES = {
    "study": "small",
    "image": {"size": 16},
    "labels": ["normal", "opacity"],
    "sites": {"alder": {"nominal_patients": 100}},
    "privacy": {"epsilon": 30.0, "delta": 1e-5},
    "stages": [
        {"kind": "spectral", "bandwidth": 4, "clip_radius": 3.0, "noise_multiplier": 0.8},
        dp_sgd(kind="flow", rounds=3),
    ],
    "release": [{"model": "flow", "images": 4}],
    "federation": {"quorum": 1},
}
