"""The coordinator: enrolment, rounds, intake, pooling and publishing.

gRPC reads what it does at a fork when it is imported: always after this.
"""

import os

from sfumato_common import __version__ as __version__

# Children of a process that serves gRPC are replaced by their program at once. gRPC's own handlers would start its
# threads in them before that, on descriptors which are then closed: three children in a hundred died of it.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
