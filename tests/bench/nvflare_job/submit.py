"""Submits the job when all sites are there: `submit.py ADMIN_KIT FOLDER OUT EXCHANGES FLOATS SITES`."""

import contextlib
import sys
import time

from exchange import Exchange
from nvflare.fuel.flare_api.flare_api import new_secure_session
from nvflare.fuel.utils.constants import FrameworkType
from nvflare.job_config.api import FedJob
from nvflare.job_config.script_runner import ScriptRunner


def connected(kit: str, sites: int):
    """A session of the administrator, once all sites are registered."""
    while True:
        with contextlib.suppress(Exception):  # the server is not up yet
            session = new_secure_session("admin@bench.org", kit, timeout=5)
            if len(session.get_system_info().client_info) == sites:
                return session
            session.close()
        time.sleep(0.3)


def main() -> None:
    kit, folder, out = sys.argv[1:4]
    exchanges, floats, sites = map(int, sys.argv[4:7])
    job = FedJob(name="exchange", min_clients=sites)
    job.to_server(Exchange(exchanges, floats, sites, out))
    job.to_clients(ScriptRunner(script="echo.py", framework=FrameworkType.NUMPY))
    job.export_job(folder)
    session = connected(kit, sites)
    session.submit_job(f"{folder}/exchange")
    session.close()


if __name__ == "__main__":
    main()
