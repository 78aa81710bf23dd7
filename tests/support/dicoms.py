"""DICOM data sets made in memory, whole and with whatever a test wants wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

DX = "1.2.840.10008.5.1.4.1.1.1.1"


def make(stored: np.ndarray, photometric: str = "MONOCHROME2", bits: int | None = None, **elements: Any) -> Dataset:
    """A minimal single-frame dataset around `stored` [H, W] or [H, W, 3]."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel = 3 if stored.ndim == 3 else 1
    if stored.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OW" if stored.dtype.itemsize == 2 else "OB"
    return dataset


def lut_item(first: int, entries: np.ndarray, bits: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = entries.astype(np.uint16).tolist()
    item["LUTData"].VR = "US"
    item.ModalityLUTType = "US"
    return item


def save(dataset: Dataset, path: Path, patient: str = "p1", **elements: Any) -> Path:
    """Write `dataset` as a radiograph of `patient`."""
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = DX, generate_uid(), "DX"
    dataset.PatientID = patient
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path
