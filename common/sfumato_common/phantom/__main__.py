"""`python -m sfumato_common.phantom FOLDER ...`: write a phantom cohort as DICOM."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sfumato_common.errors import SfumatoError
from sfumato_common.phantom.cohort import MODALITIES
from sfumato_common.phantom.dicom import write_cohort


def main() -> int:
    """Parse the command line and write; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sfumato_common.phantom", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the DICOM files and labels.csv go; made if missing")
    parser.add_argument("--site", required=True, help="site name: part of the seed and of the patient ids")
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modality", choices=list(MODALITIES), default="chest")
    systems = ", ".join(f"{name}: {'|'.join(kind.systems)}" for name, kind in MODALITIES.items())
    parser.add_argument("--device", help=f"X-ray system or camera, by default the first ({systems})")
    parser.add_argument("--size", type=int, help="longer side in pixels, at most 1024; by default the device's own")
    given = parser.parse_args()
    try:
        write_cohort(
            given.folder,
            given.site,
            given.patients,
            given.seed,
            given.device,
            modality=given.modality,
            size=given.size,
        )
    except SfumatoError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"'{given.folder.name}' cannot be written ({type(error).__name__}); check the path", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
