"""The gate's rehearsal at a site: by its own policy, and for as many patients as its store has. No image is read."""

from __future__ import annotations

from pathlib import Path

from sfumato_client.audit.rehearsal import Rehearsal, rehearse
from sfumato_client.site.given import gate_encoder, text_reader
from sfumato_client.site.home import SiteHome


def rehearse_here(root: Path, study: str, candidates: int) -> Rehearsal:
    """Which rules of the site's gate would see a leak. Raises what opening the store raises, and ConfigError."""
    home = SiteHome(root, study)
    policy = home.policy()
    rules, store = policy.release.gate, home.open_store()
    shape = store.facts.shape
    encoder = None if rules.encoder is None else gate_encoder(home, rules.encoder, policy)
    return rehearse(
        store.cohort("train").patients,
        store.cohort("holdout").patients,
        shape[1],
        1 if len(shape) == 3 else shape[3],
        candidates,
        rules,
        encoder,
        text_reader(rules),
    )
