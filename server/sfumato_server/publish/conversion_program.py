"""One worker of a conversion: `python -m sfumato_server.publish.conversion_program SET FORMAT OUT MINE OF TOLD`.

A byte is appended to the file TOLD whenever some more images are written.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from sfumato_common.errors import SfumatoError
from sfumato_common.files import room_errors
from sfumato_server.publish.conversion import TOLD, write_shards
from sfumato_server.publish.converted import open_source
from sfumato_server.publish.formats import format_of


def main() -> int:
    """Write this worker's shards; what was wrong goes to standard output, and its class is the exit code."""
    folder, form, out, mine, of, told = sys.argv[1:]
    try:
        with room_errors(), Path(told).open("ab", buffering=0) as file:
            source = open_source(Path(folder))
            write_shards(source, format_of(form), Path(out), lambda images: _tell(file, images), int(mine), int(of))
    except SfumatoError as error:
        print(error)
        return error.exit_code
    return 0


def _tell(file: io.RawIOBase, images: int) -> None:
    if images == TOLD:
        file.write(b".")


if __name__ == "__main__":
    sys.exit(main())
