"""The site store: encrypted pixels, indexed by patient, with patient-disjoint splits."""

from sfumato_client.dataset.cohort import Cohort, require_patients
from sfumato_client.dataset.facts import StoreFacts
from sfumato_client.dataset.filling import StoreTerms
from sfumato_client.dataset.report import IngestReport
from sfumato_client.dataset.store import SiteStore

__all__ = ["Cohort", "IngestReport", "SiteStore", "StoreFacts", "StoreTerms", "require_patients"]
