"""The embedded cohort: procedural radiographs and fundus photographs with known identity and pathology.

`draw_patient`, `draw_eyes` and `arrays` need numpy and Pillow only; `phantom.dicom.write_cohort` needs pydicom.
"""

from sfumato_common.phantom.cameras import CAMERAS, Camera
from sfumato_common.phantom.cohort import MODALITIES, arrays, modality_of
from sfumato_common.phantom.devices import DEVICES, Device
from sfumato_common.phantom.eyes import draw_eyes
from sfumato_common.phantom.patient import LABELS, draw_patient
from sfumato_common.phantom.person import PhantomPatient

__all__ = [
    "CAMERAS",
    "DEVICES",
    "LABELS",
    "MODALITIES",
    "Camera",
    "Device",
    "PhantomPatient",
    "arrays",
    "draw_eyes",
    "draw_patient",
    "modality_of",
]
