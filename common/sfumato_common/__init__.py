"""What coordinator and sites share; imports neither.

Flower reads whether to report home when it is imported: always after this, whoever imports it.
"""

import os

__version__ = "0.1.0"
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
