"""Which SOP classes a site asks a PACS for (PS3.4 B.5), and the transfer syntaxes in which it takes them."""

from __future__ import annotations

from functools import cache

import pydicom.uid
from pydicom.uid import UID

# of radiographs, photographs, and slices; what else a study holds (reports, presentation states, plans) is no image
_WORDS = (
    "ComputedRadiographyImageStorage",
    "DigitalXRayImageStorageForPresentation",
    "DigitalXRayImageStorageForProcessing",
    "DigitalMammographyXRayImageStorageForPresentation",
    "DigitalMammographyXRayImageStorageForProcessing",
    "DigitalIntraOralXRayImageStorageForPresentation",
    "DigitalIntraOralXRayImageStorageForProcessing",
    "BreastTomosynthesisImageStorage",
    "XRayAngiographicImageStorage",
    "XRayRadiofluoroscopicImageStorage",
    "CTImageStorage",
    "EnhancedCTImageStorage",
    "MRImageStorage",
    "EnhancedMRImageStorage",
    "UltrasoundImageStorage",
    "UltrasoundMultiFrameImageStorage",
    "NuclearMedicineImageStorage",
    "PositronEmissionTomographyImageStorage",
    "SecondaryCaptureImageStorage",
    "MultiFrameGrayscaleByteSecondaryCaptureImageStorage",
    "MultiFrameGrayscaleWordSecondaryCaptureImageStorage",
    "MultiFrameTrueColorSecondaryCaptureImageStorage",
    "VLEndoscopicImageStorage",
    "VLMicroscopicImageStorage",
    "VLSlideCoordinatesMicroscopicImageStorage",
    "VLPhotographicImageStorage",
    "OphthalmicPhotography8BitImageStorage",
    "OphthalmicPhotography16BitImageStorage",
    "WideFieldOphthalmicPhotographyStereographicProjectionImageStorage",
    "WideFieldOphthalmicPhotography3DCoordinatesImageStorage",
    "OphthalmicTomographyImageStorage",
    "DermoscopicPhotographyImageStorage",
)
UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
# JPEG (baseline, extended, lossless), JPEG-LS, JPEG 2000, RLE: what the site's readers decode
COMPRESSED = (
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.5",
)


@cache
def image_classes() -> frozenset[str]:
    """UIDs of the SOP classes that are asked for by default."""
    return frozenset(str(getattr(pydicom.uid, word)) for word in _WORDS)


def named_class(text: str) -> str:
    """The UID of a class that `pacs.yaml` names. Raises ValueError."""
    found = getattr(pydicom.uid, text, text) if text.isidentifier() else text
    uid = UID(str(found))
    if not uid.is_valid or uid.type != "SOP Class":
        raise ValueError("it names no SOP class; write a UID of PS3.4 B.5, or pydicom's word for it")
    return str(uid)


def class_name(uid: str) -> str:
    """What a class is called; a private one by nothing but that, since anybody may write a value there."""
    known = UID(uid)
    return known.name if known.type == "SOP Class" else "a class that the standard does not know"
