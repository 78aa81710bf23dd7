"""The site store: memory-mapped pixels, indexed by patient, with patient-disjoint splits."""
