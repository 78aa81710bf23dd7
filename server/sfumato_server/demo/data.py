"""What the demo's hospitals hold: phantom patients written as DICOM, or one site's rows of a real index."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from sfumato_common.errors import DataError
from sfumato_common.files import write_atomic
from sfumato_common.phantom import MODALITIES
from sfumato_common.strict import yaml_text
from sfumato_common.supervise import run_to_end
from sfumato_common.tables import INDEX_COLUMNS, read_table

_DRAW_SECONDS = 2 * 3600.0
_SEED = 2303


@dataclass(frozen=True)
class Cohort:
    """Where the data comes from (`index`, or None for phantoms), where it goes, and how many phantoms a site has.

    Phantoms are of a `modality`, at `size` pixels a side where that is not the devices' own.
    """

    index: Path | None
    folder: Path
    patients: int
    modality: str = "chest"
    size: int | None = None

    def npz_source(self, site: str) -> Path:
        """A source description for one site of the index."""
        return self._describe(site, {"kind": "npz", "index": str(self.index), "site": site})

    def dicom_source(self, site: str) -> Path:
        """A source description for a folder of phantom DICOM files."""
        folder = self.folder / site
        # what the phantom draws is known: it writes no names, and a look for them takes longer than all other reading
        said = {"kind": "dicom", "folder": str(folder), "labels": str(folder / "labels.csv"), "text": "allow"}
        return self._describe(site, said)

    def _describe(self, site: str, source: dict[str, str]) -> Path:
        path = self.folder / f"{site}.source.yaml"
        write_atomic(path, yaml_text(source))
        return path


def phantom_cohort(cohort: Cohort, site: str, number: int) -> Path:
    """Draw a site's phantom patients in a process of its own; returns the source description.

    The sites take the device vendors in turn (`number` counts them), so that exposure, size and polarity differ.
    """
    systems = sorted(MODALITIES[cohort.modality].systems)
    device = systems[number % len(systems)]
    command = [
        sys.executable, "-m", "sfumato_common.phantom",
        str(cohort.folder / site), "--site", site, "--patients", str(cohort.patients),
        "--seed", str(_SEED), "--device", device, "--modality", cohort.modality,
        *(["--size", str(cohort.size)] if cohort.size else []),
    ]  # fmt: skip
    code, said = run_to_end(command, {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}, _DRAW_SECONDS)
    if code:
        raise DataError(f"phantom cohort of '{site}': {said.strip().splitlines()[-1] if said.strip() else code}")
    return cohort.dicom_source(site)


def index_sites(index: Path) -> dict[str, int]:
    """Sites of an index CSV with their numbers of distinct patients. Raises DataError when it is not such a file."""
    patients: dict[str, set[str]] = {}
    for row in read_table(index, INDEX_COLUMNS):
        patients.setdefault(row["site"], set()).add(row["patient_id"])
    return {site: len(members) for site, members in sorted(patients.items())}
