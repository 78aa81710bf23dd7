"""What it costs to fetch from a PACS: `sfumato-site pacs fetch` beside plain loops of the libraries below it.

    python tests/bench/pacs.py [--patients 60] [--side 1024] [--rounds 3]

A real Orthanc on loopback holds phantom films. Ours lists the studies, names files by keyed hashes, checks every object
against what was asked for, and brings each to the disk before its name (fsync). *Plain* asks the same server for the
same studies one after another with dicomweb-client or pynetdicom, decodes the objects and writes them as the library
gives them; it checks nothing and syncs nothing. Each run is a process of its own, in turn; medians of all rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from support.orthanc import PASSWORD, SITE, TITLE, USER, Orthanc
from support.processes import PROGRAMS
from support.studies import POLICY

from sfumato_common.phantom.dicom import write_cohort

WAYS = ("dicomweb", "get", "move")


def described(server: Orthanc, way: str) -> dict:
    if way == "dicomweb":
        return {"kind": "dicomweb", "url": server.url, "user": USER, "password_env": "PACS_PASSWORD"}
    listener = {"ae_title": SITE, "port": server.listener, "peers": {TITLE: ["127.0.0.1"]}, "keep_free_mib": 0}
    said = {"kind": "dimse", "host": "127.0.0.1", "port": server.dicom, "ae_title": SITE, "called": TITLE}
    return {**said, "retrieve": way, "listener": listener}


def plain_dicomweb(server: dict, out: Path) -> None:
    """Every study by WADO-RS with dicomweb-client."""
    from dicomweb_client import DICOMwebClient
    from requests import Session

    session = Session()
    session.auth = (USER, PASSWORD)
    client = DICOMwebClient(server["url"], session=session)
    for study in client.search_for_studies():
        for found in client.retrieve_study(study["0020000D"]["Value"][0]):
            found.save_as(out / f"{found.SOPInstanceUID}.dcm", enforce_file_format=True)


def plain_get(server: dict, out: Path) -> None:
    """Every study by C-GET with pynetdicom."""
    from pydicom.dataset import Dataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation as Film
    from pynetdicom import AE, build_role, evt
    from pynetdicom.sop_class import (
        StudyRootQueryRetrieveInformationModelFind as Find,
    )
    from pynetdicom.sop_class import (
        StudyRootQueryRetrieveInformationModelGet as Get,
    )

    def keep(event: evt.Event) -> int:
        found = event.dataset
        found.file_meta = event.file_meta
        found.save_as(out / f"{found.SOPInstanceUID}.dcm", enforce_file_format=True)
        return 0x0000

    entity = AE(SITE)
    for context in (Find, Get, Film):
        entity.add_requested_context(context)
    link = entity.associate(
        "127.0.0.1",
        server["port"],
        ae_title=TITLE,
        ext_neg=[build_role(Film, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, keep)],
    )
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", ""
    studies = [answer.StudyInstanceUID for _, answer in link.send_c_find(query, Find) if answer]
    for study in studies:
        query.StudyInstanceUID = study
        for _ in link.send_c_get(query, Get):
            pass
    link.release()


PLAIN = {"dicomweb": plain_dicomweb, "get": plain_get}


def timed(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Seconds, processor seconds and peak memory (MB) of one process and its children."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    watched = [sys.executable, "-c", _WATCH, *command]
    done = subprocess.run(watched, env=environment, capture_output=True, text=True, timeout=600, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = float(done.stderr.strip().splitlines()[-1])
    return {"seconds": time.perf_counter() - began, "processor_s": processor, "peak_mb": peak}


# a process of its own for each, whose only child is what is measured: a maximum over children is then the run's
_WATCH = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, file=sys.stderr)
sys.exit(code)
"""


def run(server: Orthanc, folder: Path, rounds: int) -> list[dict]:
    environment = {**os.environ, "PACS_PASSWORD": PASSWORD}
    program = str(PROGRAMS / "sfumato-site")
    (folder / "policy.yaml").write_text(yaml.safe_dump({"site": "alder", **POLICY}))
    given = json.dumps({"url": server.url, "port": server.dicom})
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(rounds):
        for way in WAYS:
            home, pacs, out = (folder / f"{what}-{way}-{number}" for what in ("home", "pacs.yaml", "plain"))
            pacs.write_text(yaml.safe_dump(described(server, way)))
            begin = [program, "init", "--home", str(home), "--policy", str(folder / "policy.yaml")]
            subprocess.run(begin, env=environment, check=True, capture_output=True, timeout=120)
            ours = [program, "pacs", "fetch", str(pacs), "--home", str(home)]
            found.setdefault((way, "sfumato"), []).append(timed(ours, environment))
            if way in PLAIN:
                out.mkdir()
                plain = [sys.executable, __file__, "--plain", way, "--server", given, "--to", str(out)]
                found.setdefault((way, "plain"), []).append(timed(plain, environment))
                both = [len(list(place.rglob("*.dcm"))) for place in (home / "incoming" / "images", out)]
                assert both[0] == both[1] > 0, f"one fetched other films than the other: {both}"
    return [
        {"way": way, "who": who, **{key: statistics.median(run[key] for run in runs) for key in runs[0]}}
        for (way, who), runs in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="What it costs to fetch from a PACS")
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    for hidden in ("--plain", "--server", "--to"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.plain:
        PLAIN[given.plain](json.loads(given.server), Path(given.to))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cohort(folder / "films", "alder", given.patients, 7, "aurora", size=given.side)
        films = sorted((folder / "films").glob("*.dcm"))
        megabytes = sum(path.stat().st_size for path in films) / 1e6
        server = Orthanc(folder / "orthanc").start()
        try:
            server.fill(folder / "films")
            rows = run(server, folder, given.rounds)
        finally:
            server.kill()
    said = {"films": len(films), "megabytes": round(megabytes, 1), "load": os.getloadavg()[0], "runs": rows}
    print(f"{len(films)} films, {megabytes:.0f} MB, load {said['load']:.1f}; start of the program included")
    print("way | who | s | processor s | films/s | peak MB")
    for row in rows:
        rate = len(films) / row["seconds"]
        figures = f"{row['seconds']:.1f} | {row['processor_s']:.1f} | {rate:.1f} | {row['peak_mb']:.0f}"
        print(f"{row['way']} | {row['who']} | {figures}")
    Path("bench-out").mkdir(exist_ok=True)
    Path("bench-out/pacs.json").write_text(json.dumps(said, indent=1))


if __name__ == "__main__":
    main()
