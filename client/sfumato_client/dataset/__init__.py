"""The site store: memory-mapped pixels, indexed by patient, with patient-disjoint splits."""

from sfumato_client.dataset.cohort import Cohort, require_patients
from sfumato_client.dataset.report import IngestReport
from sfumato_client.dataset.store import SiteStore, StoreFacts

__all__ = ["Cohort", "IngestReport", "SiteStore", "StoreFacts", "require_patients"]
