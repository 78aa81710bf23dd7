"""A site's real home for tests: keys, policy, a store of phantom patients, and a pinned plan."""

import hashlib
from pathlib import Path

import yaml

from sfumato_client.dataset import SiteStore
from sfumato_client.ingest import SiteImage
from sfumato_client.site.home import SiteHome
from sfumato_common.crypto.identity import create_identity
from sfumato_common.files import make_private_folder, write_atomic
from sfumato_common.phantom import arrays
from sfumato_common.study.plan import Plan


def make_home(root: Path, name: str, plan: Plan, policy: dict, patients: int) -> SiteHome:
    home = SiteHome(root)
    make_private_folder(root)
    create_identity(home.identity, name)
    # a fixed key: with a random one a site of 40 patients now and then has too few held out for the gate to judge
    write_atomic(home.identity / "split.key", hashlib.sha256(name.encode()).hexdigest())
    write_atomic(home.root / "policy.yaml", yaml.safe_dump({"site": name, **policy}))
    form = plan.image
    modality = "chest" if form.channels == 1 else "fundus"
    images, labels, patient_index = arrays(sum(name.encode()), patients, form.size, bits=form.bits, modality=modality)
    entries = (
        SiteImage(pixels, int(label), f"{name}-{owner}", None)
        for pixels, label, owner in zip(images, labels, patient_index, strict=True)
    )
    SiteStore.create(home.store, entries, plan.image, plan.labels, home.split_key())
    home.pin(plan)
    return home
