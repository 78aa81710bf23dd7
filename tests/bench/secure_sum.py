"""What a secure sum costs at 3, 10 and 100 sites, and what it is worth beside every site's own noise.

    python tests/bench/secure_sum.py [--sites 3,10,100] [--cohort phantom,small,ten,pneumonia,sites] [--seeds N]

Cost: the protocol of one spectral stage (16 frequencies a side, charged radii) with values of zeros; bytes a site sends
and is sent, processor seconds a site and the coordinator. Worth: one spectral release that charges epsilon 1 (delta
1e-5, add/remove, the whole study), noised by each site alone, as a sum that all sites are in and of which one may
collude, and as if one party held all patients (`central`); components are by class. Three sites, or ten of 60 patients
(`ten`). Figures are those of `utility`: AUC of a network trained on the synthetic set, on test patients. Real cohorts
stand in the test collection, and are left out without it. Prints tables and writes bench-out/secure_sum.json.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import cohorts
import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from federation import Row, build_plan, federate, spent, synthetic_set
from rich.console import Console
from rich.table import Table
from utility_scores import utility_of

from sfumato_client.training import StageJob
from sfumato_common.crypto import signatures
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.files import write_json
from sfumato_common.generators.base import import_named
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.summed import sum_of_cells
from sfumato_common.phantom import arrays as phantom_arrays
from sfumato_common.protocol.summed import byte_rows, replied, requested, sealed_bytes, valued
from sfumato_common.secure_sum.coordinator import check_consent, uncover_sum
from sfumato_common.secure_sum.site import SiteSum
from sfumato_common.secure_sum.terms import SumTerms, check_offers
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.summed import exchanges_of, least_sites
from sfumato_common.types import AnyArray
from sfumato_server.rounds.strategies import strategy_of
from sfumato_server.rounds.summing import Pooled

EPSILON = 1.0
TEN = tuple(f"site-{place}" for place in range(10))


@dataclass
class Clock:
    """Processor seconds by who worked."""

    spent: dict[str, float] = field(default_factory=dict)

    def of(self, who: str, work: Any) -> Any:
        """What `work` gives, timed."""
        began = time.process_time()
        found = work()
        self.spent[who] = self.spent.get(who, 0.0) + time.process_time() - began
        return found


def stage_plan(sites: int) -> Plan:
    """A plan of so many sites with one spectral stage."""
    return parse(
        {
            "study": "cost",
            "image": {"size": 64},
            "labels": ["normal", "opacity"],
            "sites": {f"site-{place:03d}": {"nominal_patients": 100} for place in range(sites)},
            "privacy": {"epsilon": 100.0, "delta": 1e-5},
            "stages": [
                {"kind": "spectral", "bandwidth": 16, "clip_radius": 1.8, "noise_multiplier": 1.0, "radii": "charged"}
            ],
            "release": [{"model": "spectral", "images": 1}],
            "federation": {"quorum": least_sites(sites, 1)},
        },
        Plan,
        "bench",
    )


def cost(sites: int) -> dict[str, Any]:
    """One stage by `sites` sites, all of which answer."""
    plan = stage_plan(sites)
    phases = EXCHANGES["spectral"].summed.phases(plan)
    keys = {site: Ed25519PrivateKey.generate() for site in plan.sites}
    pem = {site: signatures.public_pem(key.public_key()) for site, key in keys.items()}
    pins = {site: signatures.fingerprint(own) for site, own in pem.items()}
    least = least_sites(sites, 1)
    terms, clock = SumTerms(plan.digest, "spectral", len(phases), pins, least, least), Clock()
    parties = {site: SiteSum(terms, site, None) for site in plan.sites}
    sign = {site: partial(signatures.sign, key, "secure-sum") for site, key in keys.items()}
    offers = {s: clock.of("site", partial(p.offer, 1, pem[s], sign[s])) for s, p in parties.items()}
    clock.of("coordinator", partial(check_offers, terms, 1, offers))
    sealed = {site: clock.of("site", partial(party.share, 1, offers)) for site, party in parties.items()}
    for site, party in parties.items():
        clock.of("site", partial(party.receive, {other: own[site] for other, own in sealed.items() if other != site}))
    names = sorted(plan.sites)
    for number, phase in enumerate(phases, 1):
        masked = {s: clock.of("site", partial(p.mask, number, phase.size)) for s, p in parties.items()}
        agreed = {s: clock.of("site", partial(p.consent, number, names, sign[s])) for s, p in parties.items()}
        for site, signature in agreed.items():
            check = partial(check_consent, terms, 1, number, site, offers, (names, names), signature)
            clock.of("coordinator", check)
        told = {s: clock.of("site", partial(p.unmask, number, names, agreed)) for s, p in parties.items()}
        total = clock.of("coordinator", partial(uncover_sum, terms, 1, number, offers, names, masked, told))
        assert not total.any(), "masks of all sites cancel"
    up = sum(_bytes(replied(terms, kind)) for kind in ("sum-keys", "sum-shares"))
    down = _bytes(requested(terms, "sum-shares"))
    for number, phase in enumerate(phases, 1):
        up += sum(_bytes(replied(terms, kind, phase)) for kind in ("sum-values", "sum-consent", "sum-unmask"))
        down += _bytes(valued(terms, phases, number, {}))
        down += sum(_bytes(requested(terms, kind)) for kind in ("sum-consent", "sum-unmask"))
    alone = _bytes(EXCHANGES["spectral"].returned(plan))
    assert byte_rows(terms, {}, sealed_bytes(terms)).shape[0] == sites
    return {
        "sites": sites,
        "exchanges": exchanges_of(len(phases)),
        "up": up,
        "down": down,
        "up alone": alone,
        "site seconds": clock.spent["site"] / sites,
        "coordinator seconds": clock.spent["coordinator"],
    }


def _bytes(schema: Any) -> int:
    return sum(spec.bytes for spec in schema.values())


def federate_summed(plan: Plan, parts: dict[str, Any], among: int, seed: int) -> dict[str, dict[str, AnyArray]]:
    """The first stage of the plan as sums whose noise is shared out among so many honest sites."""
    stage = plan.stages[0]
    summed = EXCHANGES[stage.kind].summed
    part, strategy = import_named(summed.summand), strategy_of(plan, stage, {})
    sigma = stage.noise_multiplier * math.sqrt(len(parts) / among)
    sums: dict[str, AnyArray] = {}
    for phase in summed.phases(plan):
        cells = np.zeros(phase.size, dtype=np.int64)
        for site, cohort in parts.items():
            noise = SecureNoise()
            recorder = NoiseRecorder(noise, "bench")
            job = StageJob(plan, site, stage, 1, {}, cohort, noise, recorder)
            value = phase.join(part(job, phase, sums, sigma))
            mask = np.zeros(phase.size, dtype=np.uint64)
            words = recorder.summed_gaussian(value, phase.sensitivity, phase.noise_multiplier, among, mask)
            cells += words.view(np.int64)
        sums |= phase.split(sum_of_cells(cells, phase.sensitivity))
    pooled = Pooled(sums, tuple(sorted(parts)), sigma)
    strategy.absorb_sum(summed.read(plan, sums), pooled, torch.Generator().manual_seed(seed))
    return {stage.kind: dict(strategy.released())}


def few(names: tuple[str, ...], patients: int) -> cohorts.BenchCohort:
    """Phantom sites of few patients each, where noise is the limit; tested on the phantom's test patients."""
    whole, devices = cohorts.phantom(), list(cohorts.DEVICES.values())
    train = {
        site: cohorts.Cohort(*phantom_arrays(cohorts.PHANTOM_SEED, patients, 32, site, devices[place % 3], first=1))
        for place, site in enumerate(names)
    }
    return replace(whole, nominal=dict.fromkeys(train, patients), parts={**whole.parts, "train": train})


def worth(name: str, cohort: cohorts.BenchCohort, seeds: int, count: int) -> list[dict[str, Any]]:
    """AUC by way of noise and seed; all charge the same."""
    plan = build_plan(cohort, Row({"spectral": 1.0}, "spectral"), EPSILON, spectral={"by_site": False})
    ways = {
        "own noise": lambda seed: federate(plan, cohort.train, seed)[0],
        "secure sum": lambda seed: federate_summed(plan, cohort.train, len(cohort.train) - 1, seed),
        "central": lambda seed: federate_summed(plan, cohort.train, len(cohort.train), seed),
    }
    found = []
    for way, make in ways.items():
        for seed in range(seeds):
            images, labels = synthetic_set(plan, "spectral", make(seed), count, seed)
            probabilities = cohorts_network(images, labels, cohort, seed)
            scores = utility_of(cohort, probabilities)
            figures = {key: float(value) for key, value in scores.items() if math.isfinite(value)}
            found.append({"cohort": name, "way": way, "seed": seed, "epsilon": spent(plan), "scores": figures})
            print(f"{name} {way} seed {seed}: auc {scores['auc']:.3f}", flush=True)
    return found


def cohorts_network(images: Any, labels: Any, cohort: cohorts.BenchCohort, seed: int) -> Any:
    """The bench's network, trained on the set."""
    from sfumato_common.metrics.network import fit_network

    return fit_network(images, labels, len(cohort.labels), seed).probabilities


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", default="3,10,100")
    parser.add_argument("--cohort", default="phantom,small,ten,pneumonia,sites")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=2000)
    given = parser.parse_args()
    console = Console(width=140)
    costs = [cost(int(count)) for count in given.sites.split(",") if count]
    table = Table(title="cost of one spectral stage as a secure sum, one site may collude")
    for heading in ("sites", "exchanges", "kB up a site", "alone", "kB down a site", "site s", "coordinator s"):
        table.add_column(heading, justify="right")
    for row in costs:
        table.add_row(
            str(row["sites"]),
            str(row["exchanges"]),
            *(f"{row[key] / 1000:.0f}" for key in ("up", "up alone", "down")),
            *(f"{row[key]:.2f}" for key in ("site seconds", "coordinator seconds")),
        )
    console.print(table)
    known = {
        "phantom": cohorts.phantom,
        "small": lambda: few(tuple(cohorts.DEVICES), 150),
        "ten": lambda: few(TEN, 60),
        "pneumonia": cohorts.pneumonia,
        "sites": cohorts.sites,
    }
    wanted = [name for name in given.cohort.split(",") if name]
    if not cohorts.DATA.is_dir():
        console.print("no test collection: real cohorts are left out")
        wanted = [name for name in wanted if name in ("phantom", "small", "ten")]
    runs: list[dict[str, Any]] = []
    for name in wanted:
        runs += worth(name, known[name](), given.seeds, given.images)
        write_json(cohorts.ROOT / "bench-out" / "secure_sum.json", {"cost": costs, "worth": runs})
    table = Table(title="AUC of a spectral release at epsilon 1, mean (least to largest) of the seeds")
    for heading in ("cohort", "epsilon", "own noise", "secure sum", "central"):
        table.add_column(heading, justify="right")
    for name in wanted:
        mine = [run for run in runs if run["cohort"] == name]
        cells = []
        for way in ("own noise", "secure sum", "central"):
            aucs = [run["scores"]["auc"] for run in mine if run["way"] == way]
            cells.append(f"{np.mean(aucs):.3f} ({min(aucs):.3f} to {max(aucs):.3f})")
        table.add_row(name, f"{mine[0]['epsilon']:.3f}", *cells)
    console.print(table)
    write_json(cohorts.ROOT / "bench-out" / "secure_sum.json", {"cost": costs, "worth": runs})


if __name__ == "__main__":
    main()
