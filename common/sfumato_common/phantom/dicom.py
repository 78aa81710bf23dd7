"""Phantom patients as real DICOM files with a full, evidently fictional patient header.

Digital X-Ray Image Storage - For Presentation (PS3.3 A.26) or Computed Radiography Image Storage (PS3.3 A.2), Explicit
VR Little Endian. Deterministic byte for byte: all identifiers are UUID-derived UIDs (PS3.5 B.2) of hashes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from sfumato_common.errors import ConfigError
from sfumato_common.files import sync_folder, write_atomic
from sfumato_common.phantom.devices import DEVICES, Device
from sfumato_common.phantom.patient import LABELS, PhantomPatient, draw_patient

_SOP_CLASS = {"DX": DigitalXRayImageStorageForPresentation, "CR": ComputedRadiographyImageStorage}
_YEAR = 2024


def write_cohort(folder: Path, site: str, patients: int, seed: int, device: str) -> None:
    """Write `patients` phantom patients as DICOM files and `labels.csv` (file,label) into `folder`, made if missing.

    `labels.csv` comes last, so a cohort without it was not finished. Raises ConfigError for an unknown device.
    """
    system = DEVICES.get(device)
    if system is None:
        raise ConfigError(f"unknown phantom device '{device}'; choose one of {', '.join(DEVICES)}")
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file,label"]
    equipment = _encode_elements(_device_elements(system))
    for number in range(1, patients + 1):
        person = draw_patient(seed, site, number, system)
        key = f"{seed}/{site}/{person.patient_id}"
        constant = equipment | _encode_elements(_patient_elements(person, site, key))
        for index, label in enumerate(person.labels):
            name = f"{person.patient_id}-{index + 1}.dcm"
            own = _encode_elements(_image_elements(person.images[index], index, key, system))
            (folder / name).write_bytes(_file(constant | own, _uid(key, index, "instance"), system))
            lines.append(f"{name},{LABELS[label]}")
    sync_folder(folder)
    write_atomic(folder / "labels.csv", "\n".join(lines) + "\n")


def _encode_elements(dataset: Dataset) -> dict[int, bytes]:
    """Each element's tag -> its Explicit VR Little Endian bytes (PS3.5 7.1.2), so that repeated ones are made once."""
    parts = {}
    for element in dataset:
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        write_data_element(buffer, element, ["utf_8"])
        parts[int(element.tag)] = buffer.getvalue()
    return parts


def _file(elements: dict[int, bytes], instance: str, device: Device) -> bytes:
    """A whole DICOM file (PS3.10 7.1): preamble, file meta information, the elements in the order of their tags."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _SOP_CLASS[device.modality]
    meta.MediaStorageSOPInstanceUID = UID(instance)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta)
    return b"".join([b"\0" * 128, b"DICM", buffer.getvalue(), *(elements[tag] for tag in sorted(elements))])


def stored_values(image: npt.NDArray[np.float32], device: Device) -> npt.NDArray[np.uint16]:
    """Display values 0..1 [H, W] -> stored values uint16; MONOCHROME1 stores white as low (PS3.3 C.7.6.3.1.2)."""
    shown = 1.0 - image if device.photometric == "MONOCHROME1" else image
    return np.rint(device.stored_low + shown * (device.stored_high - device.stored_low)).astype(np.uint16)


def _uid(*parts: object) -> str:
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _number(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "big")


def _patient_elements(person: PhantomPatient, site: str, key: str) -> Dataset:
    """Patient module (PS3.3 C.7.1.1) and who looks after the patient."""
    born = _number(key, "born")
    dataset = Dataset()
    dataset.PatientName = person.name
    dataset.PatientID = person.patient_id
    birth_year = _YEAR - person.anatomy.age_years - 1  # the birthday is still to come: the age holds at every visit
    dataset.PatientBirthDate = f"{birth_year}12{1 + born % 28:02d}"
    dataset.PatientSex = "F" if person.anatomy.female else "M"
    dataset.PatientAge = f"{person.anatomy.age_years:03d}Y"
    dataset.PatientAddress = f"{1 + born % 99} PHANTOM STREET"
    dataset.OtherPatientIDs = f"PH{born:010d}"
    dataset.InstitutionName = f"PHANTOM HOSPITAL {site.upper()}"
    dataset.ReferringPhysicianName = f"PHANTOM^REFERRER{born % 7}"
    dataset.PerformingPhysicianName = f"PHANTOM^RADIOGRAPHER{born % 5}"
    return dataset


def _device_elements(device: Device) -> Dataset:
    """Equipment (PS3.3 C.7.5.1), image pixel (C.7.6.3), Modality LUT (C.11.1), VOI LUT (C.11.2), for DX C.11.6."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = _SOP_CLASS[device.modality]
    dataset.Modality = device.modality
    dataset.Manufacturer = device.manufacturer
    dataset.ManufacturerModelName = device.model
    dataset.DeviceSerialNumber = f"{_number(device.name) % 10**6:06d}"
    dataset.StationName = f"PHANTOM-{device.name.upper()}"
    dataset.StudyDescription = "CHEST PA"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = device.photometric
    dataset.Rows, dataset.Columns = device.rows, device.columns
    dataset.BitsAllocated = 16
    dataset.BitsStored = device.bits_stored
    dataset.HighBit = device.bits_stored - 1
    dataset.PixelRepresentation = 0
    dataset.BurnedInAnnotation = "NO"
    low = device.stored_low * device.slope + device.intercept
    high = device.stored_high * device.slope + device.intercept
    # LINEAR (C.11.2.1.2.1) is black at centre - 0.5 - (width - 1) / 2 and white at centre - 0.5 + (width - 1) / 2
    dataset.WindowCenter = f"{(low + high) / 2 + 0.5:g}"
    dataset.WindowWidth = f"{high - low + 1:g}"
    dataset.RescaleSlope = f"{device.slope:g}"
    dataset.RescaleIntercept = f"{device.intercept:g}"
    dataset.RescaleType = "US"
    if device.modality == "DX":
        dataset.PresentationIntentType = "FOR PRESENTATION"
        dataset.PresentationLUTShape = "INVERSE" if device.photometric == "MONOCHROME1" else "IDENTITY"
        dataset.PixelIntensityRelationship = "LOG"
        dataset.PixelIntensityRelationshipSign = 1 if device.photometric == "MONOCHROME1" else -1
        dataset.ImageLaterality = "U"
    return dataset


def _image_elements(image: npt.NDArray[np.float32], index: int, key: str, device: Device) -> Dataset:
    """General study and series (PS3.3 C.7.2.1, C.7.3.1) and the pixels: one study an image, two months apart."""
    dataset = Dataset()
    dataset.SOPInstanceUID = _uid(key, index, "instance")
    dataset.StudyInstanceUID = _uid(key, index, "study")
    dataset.SeriesInstanceUID = _uid(key, index, "series")
    when = _number(key, "visit")
    dataset.StudyDate = dataset.ContentDate = f"{_YEAR}{1 + when % 3 + 2 * index:02d}{1 + when // 3 % 28:02d}"
    dataset.StudyTime = dataset.ContentTime = f"{7 + when % 11:02d}{when // 11 % 60:02d}00"
    dataset.AccessionNumber = f"PH{_number(key, index, 'accession'):010d}"
    dataset.StudyID = f"{1 + index}"
    dataset.add_new(0x7FE00010, "OW", stored_values(image, device).astype("<u2").tobytes())
    return dataset
