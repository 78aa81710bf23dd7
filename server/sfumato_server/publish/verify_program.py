"""One worker of a verification: `python -m sfumato_server.publish.verify_program SET MINE OF`.

Whoever starts it has checked what the coordinator signed, and the keys of the sites.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sfumato_common.errors import VerificationError
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.publish.layout import key_file
from sfumato_server.publish.manifest import MANIFEST, parse_published
from sfumato_server.publish.shard import check_shard, cover_in, read_file


def main() -> int:
    """Check every `OF`-th shard from the `MINE`-th; a line of JSON each on standard output, or of an error."""
    folder, (mine, of) = Path(sys.argv[1]), map(int, sys.argv[2:])
    try:
        manifest = parse_published(read_file(folder, MANIFEST))
        plan = parse(manifest.plan, Plan, MANIFEST)
        cover = cover_in(folder, manifest)
        for line in manifest.shards[mine::of]:
            checked = check_shard(folder, line, read_file(folder, key_file(line.site)), plan, cover)
            print(json.dumps(checked.to_json()), flush=True)
    except VerificationError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
