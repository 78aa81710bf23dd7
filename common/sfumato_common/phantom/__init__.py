"""The embedded cohort: procedural radiographs with known identity and pathology.

`draw_patient` and `arrays` need numpy and Pillow only; `sfumato_common.phantom.dicom.write_cohort` needs pydicom.
"""

from sfumato_common.phantom.devices import DEVICES, Device
from sfumato_common.phantom.patient import LABELS, PhantomPatient, arrays, draw_patient

__all__ = ["DEVICES", "LABELS", "Device", "PhantomPatient", "arrays", "draw_patient"]
