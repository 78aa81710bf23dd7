"""Small published sets of any image form, signed by real keys, for tests of whoever reads, converts or shows one."""

from collections.abc import Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sfumato_common.accounting.events import GaussianRelease
from sfumato_common.crypto.identity import create_identity
from sfumato_common.imaging import encode_png
from sfumato_common.package import PackageImage, build_package
from sfumato_common.package.manifest import ImageFacts
from sfumato_common.strict import parse
from sfumato_common.study.certificate import Certificate, stated_reach
from sfumato_common.study.costs import GATE_VERDICT
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, pixel_dtype
from sfumato_server.enrol import Registry, create_authority
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish
from support.enrolment import enrol_site, keep_grant

SITES, LABELS = ("east", "north"), ("abnormal", "normal")
_PASSPHRASE = b"pass-phrase-of-the-test"
FORMS = {
    "grey-8": {"size": 16},
    "grey-16": {"size": 16, "bits": 16},
    "rgb-8": {"size": 16, "channels": 3},
}


def plan_of(images: int, form: dict[str, Any], **more: Any) -> Plan:
    values = {
        "study": "chest",
        "image": form,
        "labels": list(LABELS),
        "sites": {site: {"nominal_patients": 100} for site in SITES},
        "privacy": {"epsilon": 8.0, "delta": 1e-4},
        "stages": [{"kind": "spectral", "bandwidth": 8, "clip_radius": 1.0, "noise_multiplier": 2.0}],
        "release": [{"model": "spectral", "images": images}],
        "federation": {"quorum": 2},
        **more,
    }
    return parse(values, Plan, "plan")


@cache
def certificate_of() -> Certificate:
    paid = {"add_remove": 1.6981, "add_remove_rdp": 1.8801, "replace_one": 3.8045}
    value = {
        "unit": "patient",
        "adjacency": "add-remove",
        "delta": 1e-4,
        "epsilon": {"train": paid, "holdout": dict.fromkeys(paid, 0.0), "patient": paid},
        "mechanisms": {
            "train": [{"mechanism": "GaussianRelease", "noise_multiplier": 2.0, "times": 1}],
            "holdout": [],
        },
        "declared": [{"what": GATE_VERDICT.what, "bits": 1}],
        "noise": "secure",
        "covers": "Everything that left this site under this plan.",
        "reach": stated_reach([GaussianRelease(2.0)], [], 1e-4).model_dump(),
    }
    return Certificate.model_validate(value)


def _drawn(plan: Plan, rng: np.random.Generator) -> AnyArray:
    """A slope with noise, both ends of the range in it."""
    form = plan.image
    dtype = pixel_dtype(form.bits)
    slope = np.linspace(0.2, 0.8, form.size)[:, None] * np.linspace(0.5, 1.0, form.size)
    values = slope if form.channels == 1 else np.stack([slope, slope.T, 1 - slope], axis=-1)
    noisy = np.clip(values + rng.normal(0, 0.05, values.shape), 0, 1)
    noisy.flat[:2] = 0, 1
    return np.rint(noisy * np.iinfo(dtype).max).astype(dtype)


def _images(plan: Plan, seed: int, count: int, given: Sequence[AnyArray]) -> list[PackageImage]:
    rng, made = np.random.default_rng(seed), []
    for at in range(count):
        pixels = given[at] if len(given) else _drawn(plan, rng)
        said = {"label": LABELS[at % 2], "model": "spectral", "method": "dp-sampling", "guarantee": "formal"}
        made.append(PackageImage(ImageFacts(name=rng.bytes(16).hex(), **said), encode_png(pixels)))
    return made


def published_set(
    folder: Path, images: int = 6, given: Sequence[AnyArray] = (), shows: Any = None, **form: Any
) -> Path:
    """`folder/published`, of so many images a site in that image form; the coordinator's key is in `key.pem` beside.

    `given` are the pixels of all sites' images, one site's behind another's; otherwise they are drawn. `shows` is the
    plan's.
    """
    plan, home = plan_of(images, {"size": 16, **form}, shows=shows), folder / "coordinator"
    authority = create_authority(home, passphrase=_PASSPHRASE)
    (home / "intake").mkdir(exist_ok=True)
    for seed, site in enumerate(SITES):
        identity = create_identity(folder / site, site)
        keep_grant(home, identity, enrol_site(home, identity, _PASSPHRASE))
        package = build_package(
            site=site,
            study=plan.study,
            plan_hash=plan.digest,
            certificate=certificate_of(),
            images=_images(plan, seed, images, given[seed * images : (seed + 1) * images]),
            sign=identity.sign_package,
            created=date(2026, 1, 2),
        )
        (home / "intake" / f"{site}.formal.sfumato").write_bytes(package)
    (folder / "key.pem").write_bytes(authority.public_key)
    pool = pool_packages(home, plan, Registry(home))
    return publish(pool, plan, folder, authority, {}, None).folder
