"""Readers: DICOM, PNG folders and npz sets into site images."""
