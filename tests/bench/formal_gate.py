"""What the private gate on formal images sees, and what it cannot see: sets with a known number of copied patients.

Each set holds 400 images: so many copies of training patients, each with grain of 2.5 grey levels, among images of
strangers. The gate's count is exact; the share refused is over draws of its noise. Phantom patients at 32 and 64 px,
and the three real sites at 64 px where they lie beside the checkout (strangers there are each site's own other
patients; where there are fewer than 400, the set is smaller). Prints a table and writes bench-out/formal_gate.json.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cohorts import DATA
from cohorts import sites as real_sites
from rich.console import Console
from rich.table import Table

from sfumato_client.audit.copies import copied_patients, most_by_noise
from sfumato_client.dataset import Cohort
from sfumato_common.files import write_json
from sfumato_common.phantom import arrays
from sfumato_common.study.gate_rules import GateRules
from sfumato_common.types import ByteImages

COPIED, NOISES, IMAGES, DRAWS = (0, 1, 5, 10, 20, 40), (2.0, 4.0, 10.0), 400, 20_000


def phantom(size: int) -> tuple[ByteImages, np.ndarray, ByteImages]:
    """Training images with their patients, and strangers."""
    images, _, owners = arrays(11, 300, size)
    strangers, _, _ = arrays(12, IMAGES, size)
    return np.stack(list(images)), np.unique(owners, return_inverse=True)[1], np.stack(list(strangers))


def sites() -> dict[str, tuple[ByteImages, np.ndarray, ByteImages]]:
    """The same of each real site at 64 px: its training patients, and its other patients as strangers."""
    if not DATA.is_dir():
        Console().print(f"no {DATA.name} beside the checkout: real sites are left out")
        return {}
    cohort, found = real_sites(), {}
    for site, train in cohort.train.items():
        images, _, patients = train.everything()
        others = [part[site].everything()[0] for name, part in cohort.parts.items() if name != "train"]
        found[site] = (images, patients, np.concatenate(others)[:IMAGES])
    return found


def main() -> None:
    """Run all cohorts."""
    rules, rng, results = GateRules(), np.random.default_rng(0), []
    table = Table(title="private gate: share of sets refused")
    for heading in ("cohort", "copied", "count", *(f"z = {noise:g}" for noise in NOISES)):
        table.add_column(heading, justify="right")
    for name, (images, patients, strangers) in {**{f"phantom {s}": phantom(s) for s in (32, 64)}, **sites()}.items():
        train = Cohort(images, np.zeros(len(images), np.int64), patients)
        firsts = np.unique(patients, return_index=True)[1]
        for copied in COPIED:
            copies = images[firsts[:copied]] + rng.normal(0, 2.5, (min(copied, len(firsts)), *images.shape[1:]))
            some = np.concatenate([np.clip(copies, 0, 255).astype(np.uint8), strangers[copied:]])
            count = copied_patients([some], train, rules)
            refused = [float((count + rng.normal(0, noise, DRAWS) > most_by_noise(noise)).mean()) for noise in NOISES]
            results.append(
                {"cohort": name, "copied": copied, "count": count, "refused": dict(zip(NOISES, refused, strict=True))}
            )
            table.add_row(name, str(copied), str(count), *(f"{share:.3f}" for share in refused))
    Console(width=100).print(table)
    write_json(Path("bench-out/formal_gate.json"), {"rows": results})


if __name__ == "__main__":
    main()
