"""A site's real home for tests: keys, policy, a store of phantom patients, and a pinned plan."""

from pathlib import Path

from sfumato_client.ingest import SiteImage
from sfumato_client.site import simulated
from sfumato_client.site.home import SiteHome
from sfumato_common.phantom import arrays
from sfumato_common.study.plan import Plan


def make_home(root: Path, name: str, plan: Plan, policy: dict, patients: int) -> SiteHome:
    """With the fixed split key of simulations: by a random one a site of 40 now and then holds too few out to judge."""
    form = plan.image
    modality = "chest" if form.channels == 1 else "fundus"
    images, labels, patient_index = arrays(sum(name.encode()), patients, form.size, bits=form.bits, modality=modality)
    entries = (
        SiteImage(pixels, int(label), f"{name}-{owner}", None)
        for pixels, label, owner in zip(images, labels, patient_index, strict=True)
    )
    return simulated.make_home(root, name, plan, policy, entries)
