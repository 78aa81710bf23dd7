"""The coordinator: enrolment, rounds, intake, pooling and publishing.

Flower reads whether to report home when it is imported, and gRPC what it does at a fork: always after this.
"""

import os

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
# Children of a process that serves gRPC are replaced by their program at once. gRPC's own handlers would start its
# threads in them before that, on descriptors which are then closed: three children in a hundred died of it.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
