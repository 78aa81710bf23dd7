"""The SuperNode's program: Flower's own, which shows the site's certificate to the coordinator (mutual TLS)."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from sfumato_client.egress.flower_hooks import Contact, install_certificate, require_flower, shorten_polls
from sfumato_client.egress.supernode import LINK_VARIABLE
from sfumato_common.logs import take_over_flower
from sfumato_common.protocol.flower import fetch_sooner


def main() -> None:
    """Run the SuperNode; all options but the two of the certificate are Flower's."""
    require_flower()
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--site-certificate", type=Path, required=True)
    parser.add_argument("--site-key", type=Path, required=True)
    known, sys.argv[1:] = parser.parse_known_args()
    address = sys.argv[sys.argv.index("--superlink") + 1]
    connection, home = import_module("flwr.supernode.fleet_http_connection"), Path(os.environ[LINK_VARIABLE])
    install_certificate(connection, known.site_certificate, known.site_key, Contact(home, address))
    take_over_flower(import_module("flwr.supernode.cli.flower_supernode").uvicorn)
    shorten_polls(import_module("flwr.supernode.start_client_internal"))
    fetch_sooner()
    run_and_end(import_module("flwr.supernode.cli").flower_supernode)


def run_and_end(work: Callable[[], None]) -> NoReturn:
    """Run `work` and end this process with it, whatever its threads wait for.

    One that has given up a line that was cut would wait for that line's threads for ever, and its site with it.
    """
    code: object = 0
    try:
        work()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        code = 1
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main()
