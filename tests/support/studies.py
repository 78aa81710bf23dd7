"""A tiny study: its plan and policy as plain data, to be changed by a test."""

from support.plans import dp_sgd

SITES = ("alder", "birch", "cedar")
SIZE = 24

PLAN = {
    "study": "tiny",
    "image": {"size": SIZE, "channels": 1},
    "labels": ["normal", "opacity"],
    "sites": {site: {"nominal_patients": 40} for site in SITES},
    "privacy": {"epsilon": 40.0, "delta": 1.0e-5},
    "stages": [
        {"kind": "spectral", "bandwidth": 6, "clip_radius": 2.0, "noise_multiplier": 0.5},
        dp_sgd(kind="gan", rounds=2, width=8, generator_steps=2, fakes=8),
        dp_sgd(kind="flow", learning_rate=0.0001, levels=1, steps_per_level=2, hidden=8),
    ],
    "release": [{"model": "spectral", "images": 12}, {"model": "gan", "images": 8}, {"model": "flow", "images": 8}],
    "utility": {"bins": 8, "noise_multiplier": 2.0},
    "federation": {"quorum": 2, "round_deadline_s": 60, "join_deadline_s": 5},
}  # fmt: skip

POLICY = {
    "budget": {"epsilon": 60.0, "delta": 1.0e-5},
    "allowed_stages": ["spectral", "gan", "flow"],
    "minimum_patients": 10,
    "release": {
        "allowed_methods": ["dp-sampling"],
        "largest_set": 100,
        # a dozen noisy images of 24 px say little about distances: the gate's limits have tests of their own
        "gate": {"declare_verdict": True, "relative_distance_floor": 0.1, "copy_share_limit": 0.5},
    },
    "utility_figure": "noised",
    "noise": "test",
    "answer_interval_s": 0.0,
}
