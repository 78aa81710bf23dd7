"""Phantom patients as real DICOM files with a full, evidently fictional patient header.

Digital X-Ray Image Storage - For Presentation (PS3.3 A.26), Computed Radiography Image Storage (PS3.3 A.2) or
Ophthalmic Photography 8 Bit Image Storage (PS3.3 A.41), Explicit VR Little Endian. Deterministic byte for byte: all
identifiers are UUID-derived UIDs (PS3.5 B.2) of hashes.
"""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian

from sfumato_common.files import sync_folder, write_atomic
from sfumato_common.phantom.cohort import modality_of
from sfumato_common.phantom.headers import fictional_uid, image_elements, patient_elements, sop_class, system_elements


def write_cohort(
    folder: Path,
    site: str,
    patients: int,
    seed: int,
    device: str | None,
    *,
    modality: str = "chest",
    size: int | None = None,
) -> None:
    """Write `patients` phantom patients as DICOM files and `labels.csv` (file,label) into `folder`, made if missing.

    `size` is the longer side of the images in pixels, without it the device's own. `labels.csv` comes last, so a cohort
    without it was not finished. Raises ConfigError for a device, modality or size that the phantom does not draw.
    """
    kind = modality_of(modality)
    system = kind.system(device, size)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file,label"]
    equipment = _encode_elements(system_elements(system))
    for number in range(1, patients + 1):
        person = kind.draw(seed, site, number, system)
        own_kind = () if modality == "chest" else (modality,)
        key = "/".join(map(str, (seed, site, *own_kind, person.patient_id)))
        constant = equipment | _encode_elements(patient_elements(person, site, key))
        for index, label in enumerate(person.labels):
            name = f"{person.patient_id}-{index + 1}.dcm"
            elements = constant | _encode_elements(image_elements(person, index, key, system))
            (folder / name).write_bytes(_file(elements, fictional_uid(key, index, "instance"), sop_class(system)))
            lines.append(f"{name},{kind.labels[label]}")
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


def _file(elements: dict[int, bytes], instance: str, storage: str) -> bytes:
    """A whole DICOM file (PS3.10 7.1): preamble, file meta information, the elements in the order of their tags."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(storage)
    meta.MediaStorageSOPInstanceUID = UID(instance)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta)
    return b"".join([b"\0" * 128, b"DICM", buffer.getvalue(), *(elements[tag] for tag in sorted(elements))])
