"""DICOM objects to display values: sites and researchers read them by the same code; needs the extra `dicom`."""
