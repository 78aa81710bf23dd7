"""Where every site's noise comes from: the operating system, or a seed where the site's own policy says so."""

from __future__ import annotations

import hashlib

from sfumato_common.config.policy import Policy
from sfumato_common.privacy.noise import NoiseSource, SecureNoise, TestNoise


def site_noise(policy: Policy, *occasion: str | int) -> NoiseSource:
    """Secure noise, or under `noise: test` the loud reproducible one, another for every site and occasion."""
    if policy.noise == "secure":
        return SecureNoise()
    text = "|".join(map(str, (policy.site, *occasion)))
    return TestNoise(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"))
