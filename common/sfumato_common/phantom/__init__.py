"""The embedded cohort: procedural radiographs with known identity and pathology."""
