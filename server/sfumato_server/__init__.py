"""The coordinator: enrolment, rounds, intake, pooling and publishing.

Flower reads whether to report home when it is imported, which is always after this.
"""

import os

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
