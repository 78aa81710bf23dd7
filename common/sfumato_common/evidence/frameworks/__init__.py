"""The table of frameworks that a dossier is held against, one file each."""

from __future__ import annotations

from sfumato_common.evidence.frameworks.base import Framework, Requirement
from sfumato_common.evidence.frameworks.dpia import DPIA
from sfumato_common.evidence.frameworks.edpb import EDPB
from sfumato_common.evidence.frameworks.iso27559 import ISO27559
from sfumato_common.evidence.frameworks.nist import NIST
from sfumato_common.evidence.frameworks.satre import SATRE
from sfumato_common.evidence.frameworks.tehdas2 import TEHDAS2

__all__ = ["FRAMEWORKS", "Framework", "Requirement"]

FRAMEWORKS: tuple[Framework, ...] = (DPIA, SATRE, TEHDAS2, EDPB, NIST, ISO27559)
