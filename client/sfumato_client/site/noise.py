"""Where every site's noise comes from: the operating system, or a seed where the site's own policy says so."""

from __future__ import annotations

import hashlib

from sfumato_common.mechanisms.noise import NoiseSource, SecureNoise, TestNoise
from sfumato_common.protocol.messages import Request
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy


def site_noise(policy: Policy, *occasion: str | int) -> NoiseSource:
    """Secure noise, or under `noise: test` the loud reproducible one, another for every site and occasion."""
    if policy.noise == "secure":
        return SecureNoise()
    text = "|".join(map(str, (policy.site, *occasion)))
    return TestNoise(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"))


def noise_of(policy: Policy, plan: Plan, request: Request) -> NoiseSource:
    """Where the noise of the answer to `request` begins."""
    return site_noise(policy, plan.digest, request.kind, request.stage, request.round)
