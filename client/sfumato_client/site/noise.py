"""Where every site's noise comes from: the operating system, or a seed where the site's own policy says so."""

from __future__ import annotations

import hashlib

from sfumato_common.mechanisms.noise import NoiseSource, SecureNoise, TestNoise
from sfumato_common.study.policy import Policy


def site_noise(policy: Policy, *occasion: str | int) -> NoiseSource:
    """Secure noise, or under `noise: test` the loud reproducible one, another for every site and occasion."""
    if policy.noise == "secure":
        return SecureNoise()
    text = "|".join(map(str, (policy.site, *occasion)))
    return TestNoise(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"))
