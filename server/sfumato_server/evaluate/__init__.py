"""What a published set is worth to a researcher with real images: utility, likeness, memorisation, with intervals."""

from sfumato_server.evaluate.report import Report, evaluate
from sfumato_server.evaluate.settings import STEPS, Settings, device_of

__all__ = ["STEPS", "Report", "Settings", "device_of", "evaluate"]
