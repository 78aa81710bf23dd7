"""One worker of a conversion: `python -m sfumato_server.publish.conversion_program SET FORMAT OUT MINE OF`."""

from __future__ import annotations

import sys
from pathlib import Path

from sfumato_common.errors import SfumatoError
from sfumato_common.files import room_errors
from sfumato_server.publish.conversion import write_shards
from sfumato_server.publish.converted import open_source
from sfumato_server.publish.formats import format_of


def main() -> int:
    """Write this worker's shards; what was wrong goes to standard output, and its class is the exit code."""
    folder, form, out, mine, of = sys.argv[1:]
    try:
        with room_errors():
            write_shards(open_source(Path(folder)), format_of(form), Path(out), int(mine), int(of))
    except SfumatoError as error:
        print(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
