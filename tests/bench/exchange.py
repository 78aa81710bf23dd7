"""What an exchange without work costs a site: seconds, and processor seconds of all its processes, on real processes.

    python tests/bench/exchange.py [--exchanges 8]

One SuperLink and one site on this machine over mutual TLS; the coordinator greets the site again and again. The plan's
pace, which a study waits besides, is not in it. It measures the Sfumato that is installed where it runs, so another
checkout is measured by its own Python and this one's `tests` as PYTHONPATH. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from support.exchanges import site_at_work


def main() -> None:
    """Greet, and print the table."""
    parser = argparse.ArgumentParser(description="The cost of an exchange without work")
    parser.add_argument("--exchanges", type=int, default=8)
    given = parser.parse_args()
    os.environ.setdefault("SFUMATO_CA_PASSPHRASE", "of a bench alone")
    with tempfile.TemporaryDirectory() as folder, site_at_work(Path(folder)) as site:
        site.join()
        began = time.monotonic()
        assert site.hello(280) is not None, site.said()
        first = time.monotonic() - began
        seconds, used = [], site.processor_seconds()
        for _ in range(given.exchanges):
            began = time.monotonic()
            assert site.hello(280) is not None, site.said()
            seconds.append(time.monotonic() - began)
        used = site.processor_seconds() - used
    out = Path("bench-out") / "exchange.json"
    out.parent.mkdir(exist_ok=True)
    figures = {"first": first, "seconds": seconds, "processor": used / given.exchanges}
    out.write_text(json.dumps(figures) + "\n")
    print("first exchange (s) | exchange, median (s) | slowest (s) | processor s an exchange")
    print(f"{first:.1f} | {statistics.median(seconds):.1f} | {max(seconds):.1f} | {used / given.exchanges:.2f}")


if __name__ == "__main__":
    main()
