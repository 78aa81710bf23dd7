"""What coordinator and sites share; imports neither.

Flower reads whether to report home when it is imported: always after this, whoever imports it. So does MKL, when it
first multiplies: in strict mode a row of a product has the same last bits however many rows there are (see `memory`).
"""

import os

__version__ = "0.1.0"
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
