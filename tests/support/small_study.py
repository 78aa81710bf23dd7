"""A small study of one site, as plain data: a spectral release and a flow of three rounds."""

VALUES = {
    "study": "small",
    "image": {"size": 16},
    "labels": ["normal", "opacity"],
    "sites": {"alder": {"nominal_patients": 100}},
    "privacy": {"epsilon": 30.0, "delta": 1e-5},
    "stages": [
        {"kind": "spectral", "bandwidth": 4, "clip_radius": 3.0, "noise_multiplier": 0.8},
        {
            "kind": "flow",
            "rounds": 3,
            "local_steps": 2,
            "sampling_rate": 0.2,
            "clipping_norm": 1.0,
            "noise_multiplier": 1.0,
            "learning_rate": 1e-3,
        },
    ],
    "release": [{"model": "flow", "images": 4}],
    "federation": {"quorum": 1},
}
