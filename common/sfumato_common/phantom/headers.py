"""What stands in the headers of phantom DICOM files: patient, equipment, image and study modules, all fictional."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    OphthalmicPhotography8BitImageStorage,
)

from sfumato_common.phantom.cameras import Camera
from sfumato_common.phantom.devices import Device
from sfumato_common.phantom.person import PhantomPatient

_YEAR = 2024
# ViewPosition -> StudyDescription and PatientOrientation: what the image's rows and columns run towards
_FILMS = {"PA": ("CHEST PA", ["L", "F"]), "LL": ("CHEST LATERAL", ["P", "F"])}


def stored_values(image: npt.NDArray[np.float32], device: Device) -> npt.NDArray[np.uint16]:
    """Display values 0..1 [H, W] -> stored values uint16; MONOCHROME1 stores white as low (PS3.3 C.7.6.3.1.2)."""
    shown = 1.0 - image if device.photometric == "MONOCHROME1" else image
    return np.rint(device.stored_low + shown * (device.stored_high - device.stored_low)).astype(np.uint16)


def fictional_uid(*parts: object) -> str:
    """A UUID-derived UID (PS3.5 B.2) of a hash of `parts`."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _number(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "big")


def patient_elements(person: PhantomPatient, site: str, key: str) -> Dataset:
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


def sop_class(system: Device | Camera) -> str:
    """The storage class of a system's images (PS3.3 A.26, A.2, A.41)."""
    if isinstance(system, Camera):
        return OphthalmicPhotography8BitImageStorage
    return DigitalXRayImageStorageForPresentation if system.modality == "DX" else ComputedRadiographyImageStorage


def system_elements(system: Device | Camera) -> Dataset:
    """What all images of a device or camera have in common: equipment (PS3.3 C.7.5.1) and image pixel (C.7.6.3)."""
    dataset = _photograph_elements(system) if isinstance(system, Camera) else _film_elements(system)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class(system)
    dataset.Manufacturer = system.manufacturer
    dataset.ManufacturerModelName = system.model
    dataset.DeviceSerialNumber = f"{_number(system.name) % 10**6:06d}"
    dataset.StationName = f"PHANTOM-{system.name.upper()}"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.Rows, dataset.Columns = system.rows, system.columns
    dataset.PixelRepresentation = 0
    dataset.BurnedInAnnotation = "NO"
    return dataset


def _photograph_elements(camera: Camera) -> Dataset:
    """Ophthalmic photography image (PS3.3 C.8.17.1) in colour, by pixel; the eye is the image's own."""
    del camera
    dataset = Dataset()
    dataset.Modality = "OP"
    dataset.StudyDescription = "FUNDUS PHOTOGRAPHY"
    dataset.BodyPartExamined = "EYE"
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.LossyImageCompression = "00"
    return dataset


def _film_elements(device: Device) -> Dataset:
    """Image pixel (PS3.3 C.7.6.3), Modality LUT (C.11.1), VOI LUT (C.11.2) and, for DX, C.11.6, of a radiograph."""
    dataset = Dataset()
    dataset.Modality = device.modality
    dataset.BodyPartExamined = "CHEST"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = device.photometric
    dataset.BitsAllocated = 16
    dataset.BitsStored = device.bits_stored
    dataset.HighBit = device.bits_stored - 1
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


def image_elements(person: PhantomPatient, index: int, key: str, system: Device | Camera) -> Dataset:
    """General study and series (PS3.3 C.7.2.1, C.7.3.1), view and pixels: one study an image, two months apart."""
    dataset = Dataset()
    dataset.SOPInstanceUID = fictional_uid(key, index, "instance")
    dataset.StudyInstanceUID = fictional_uid(key, index, "study")
    dataset.SeriesInstanceUID = fictional_uid(key, index, "series")
    when = _number(key, "visit")
    dataset.StudyDate = dataset.ContentDate = f"{_YEAR}{1 + when % 3 + 2 * index:02d}{1 + when // 3 % 28:02d}"
    dataset.StudyTime = dataset.ContentTime = f"{7 + when % 11:02d}{when // 11 % 60:02d}00"
    dataset.AccessionNumber = f"PH{_number(key, index, 'accession'):010d}"
    dataset.StudyID = f"{1 + index}"
    image, view = person.images[index], person.views[index]
    if isinstance(system, Camera):
        dataset.ImageLaterality = view
        pixels = np.rint(image * 255.0).astype(np.uint8).tobytes()
        dataset.add_new(0x7FE00010, "OB", pixels + b"\0" * (len(pixels) % 2))
        return dataset
    dataset.ViewPosition = view
    dataset.StudyDescription, dataset.PatientOrientation = _FILMS[view]
    dataset.add_new(0x7FE00010, "OW", stored_values(image, system).astype("<u2").tobytes())
    return dataset
