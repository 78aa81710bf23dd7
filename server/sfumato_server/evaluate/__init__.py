"""What a published set is worth to a researcher with real images: utility, likeness, memorisation, with intervals."""

from sfumato_server.evaluate.reading import Reading
from sfumato_server.evaluate.report import Report, evaluate
from sfumato_server.evaluate.settings import QUICK, STEPS, Settings, device_of

__all__ = ["QUICK", "STEPS", "Reading", "Report", "Settings", "device_of", "evaluate"]
