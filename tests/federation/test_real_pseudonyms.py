"""With real processes: a site that hides its name, searched for in all that others read of the study. Linux only."""

from __future__ import annotations

import base64
import bz2
import copy
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import yaml
from PIL import Image
from pyarrow import parquet
from support.parties import parties
from support.processes import ENVIRONMENT, PROGRAMS, SMALL_PLAN, SMALL_POLICY

from sfumato_client.site.home import SiteHome
from sfumato_common.crypto.identity import load_identity
from sfumato_common.crypto.signatures import fingerprint, raw_of
from sfumato_common.phantom import arrays
from sfumato_common.supervise import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
    pytest.mark.timeout(900),
]
OWN = "st-brendan"
SAID = {**ENVIRONMENT, "SFUMATO_CA_PASSPHRASE": "a passphrase of this test"}
# what a coordinator keeps of enrolment, which is where it may know whose name it is
REGISTRY = {"sites.json"}
_PEM = re.compile(rb"-----BEGIN [A-Z ]+-----\s([A-Za-z0-9+/=\s]+)-----END")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")


def command(program: str, *words: object) -> str:
    line = [str(PROGRAMS / program), *map(str, words)]
    done = subprocess.run(line, env=SAID, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def traces(home: SiteHome) -> dict[str, bytes]:
    """What would tell whose a pseudonym is, in lower case: the name and its hashes, its key, in the forms of files."""
    key = load_identity(home.identity).signing_public
    own, found = OWN.encode(), dict[str, bytes]()
    for word in (OWN, "brendan"):
        raw = word.encode()
        found |= {word: raw, f"{word} utf-16le": word.encode("utf-16-le"), f"{word} utf-16be": word.encode("utf-16-be")}
        found |= {f"{word} utf-32": word.encode("utf-32-le"), f"{word} hex": raw.hex().encode()}
        found |= {f"{word} backwards": raw[::-1], f"{word} base32": base64.b32encode(raw).rstrip(b"=")[:-1].lower()}
    found |= {"quoted": quote(OWN, safe="").replace("-", "%2d").encode(), "as json": rb"st\u002dbrendan"}
    found |= {f"its {name}": hashlib.new(name, own).hexdigest().encode() for name in ("md5", "sha1", "sha256")}
    found |= {f"its raw {name}": hashlib.new(name, own).digest() for name in ("sha1", "sha256")}
    raw_key = raw_of(key)
    found |= {"key": raw_key, "key hex": raw_key.hex().encode(), "fingerprint": fingerprint(key).encode()}
    return {what: value.lower() for what, value in found.items()}


def unpacked(name: str, data: bytes, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """A file's bytes, and what lies in it: members of zip and tar, streams, cells of tables, base64, PEM, chunks."""
    yield name, data
    if depth == 3:
        return
    inner: list[tuple[str, bytes]] = []
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as members:
            inner += [(f"{name}/{one}", members.read(one)) for one in members.namelist()]
    elif name.endswith(".tar"):
        with tarfile.open(fileobj=io.BytesIO(data)) as members:
            inner += [(f"{name}/{one.name}", members.extractfile(one).read()) for one in members if one.isfile()]  # type: ignore[union-attr]
    elif name.endswith(".parquet"):
        inner.append((f"{name}, cells", repr(parquet.read_table(io.BytesIO(data)).to_pylist()).encode()))
    elif data.startswith(b"\x1f\x8b"):
        inner.append((f"{name}, unpacked", gzip.decompress(data)))
    elif data.startswith(b"BZh"):
        inner.append((f"{name}, unpacked", bz2.decompress(data)))
    if data[:2] in (b"\x78\x01", b"\x78\x9c", b"\x78\xda"):
        inner.append((f"{name}, inflated", zlib.decompress(data)))
    if b"\0" not in data[:4096]:
        coded = [body for body in _PEM.findall(data)] + _BASE64.findall(data)
        inner += [(f"{name}, decoded", _decoded(body)) for body in coded]
    for one, content in inner:
        yield from unpacked(one, content, depth + 1)


def _decoded(body: bytes) -> bytes:
    text = b"".join(body.split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    return base64.b64decode(text[: len(text) - (len(text) % 4 == 1)] + b"===", validate=False)


def require_none(folder: Path, wanted: dict[str, bytes], least: int) -> None:
    """No file of a folder tells, by its name or by anything in it."""
    count = 0
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in REGISTRY:
            count += 1
            for name, data in unpacked(str(path.relative_to(folder)), path.read_bytes()):
                low, called = data.lower(), name.lower().encode()
                for what, trace in wanted.items():
                    assert trace not in low and trace not in called, f"{name} has {what}"
    assert count >= least


def made_site(root: Path, policy: dict, study: list[str]) -> tuple[SiteHome, str]:
    """A home by its commands, up to the request; and the name that studies are to know."""
    (root / "policy.yaml").parent.mkdir(parents=True)
    (root / "policy.yaml").write_text(yaml.safe_dump(policy))
    command("sfumato-site", "init", "--home", root / "home", "--policy", root / "policy.yaml")
    home = SiteHome(root / "home", study[1] if study else "")
    if study:
        command("sfumato-site", "pseudonym", "--home", home.root, *study)
    return home, home.policy().site


def ingested(root: Path, home: SiteHome, plan: Path, seed: int) -> None:
    """Pictures whose patients, files and folders are called by the site's name, as a hospital's may be."""
    images, labels, owners = arrays(seed, 40, SMALL_PLAN["image"]["size"])
    folder = root / f"{OWN}-archive"
    folder.mkdir()
    rows = ["file,patient_id,label"]
    for number, (pixels, label, owner) in enumerate(zip(images, labels, owners, strict=True)):
        grey = np.clip((pixels + 1.0) * 127.5, 0, 255).astype(np.uint8).squeeze()
        Image.fromarray(grey).save(folder / f"{OWN}-{number}.png")
        rows.append(f"{OWN}-{number}.png,{OWN}-{owner},{SMALL_PLAN['labels'][int(label)]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    said = {"kind": "png", "folder": str(folder), "labels": str(folder / "labels.csv")}
    (folder / "source.yaml").write_text(yaml.safe_dump(said))
    command("sfumato-site", "ingest", "--home", home.root, folder / "source.yaml", "--plan", plan)


@pytest.mark.parametrize("kind", ["pseudonym", "pseudonym-per-study"])
def test_nothing_that_others_read_of_a_study_has_the_name_of_a_site_that_hides_it(tmp_path: Path, kind: str) -> None:
    study = ["--study", "lungs"] if kind == "pseudonym-per-study" else []
    hidden, name = made_site(tmp_path / "hidden", {**SMALL_POLICY, "site": OWN, "name": kind}, study)
    shown, _ = made_site(tmp_path / "shown", {**SMALL_POLICY, "site": "birch"}, [])
    values = copy.deepcopy(SMALL_PLAN)
    values["sites"] = {site: {"nominal_patients": 40} for site in (name, "birch")}
    plan, port = tmp_path / "plan.yaml", free_port()
    plan.write_text(yaml.safe_dump(values))
    coordinator = tmp_path / "coordinator"
    command("sfumato", "coordinator", "init", "--home", coordinator, "--plan", plan, "--name", "127.0.0.1")
    own_key = command("sfumato", "coordinator", "fingerprint", "--home", coordinator).split()[0]
    for home, words, seed in ((hidden, study, 5), (shown, [], 6)):
        key = fingerprint(load_identity(home.keys).signing_public)
        grant = tmp_path / f"{seed}.grant"
        request = home.link / "enrolment-request.json"
        command(
            "sfumato", "coordinator", "enrol", "--home", coordinator, request, "--grant", grant, "--fingerprint", key
        )
        to = ["--coordinator", f"127.0.0.1:{port}", "--fingerprint", own_key]
        command("sfumato-site", "join", "--home", home.root, grant, *to, *words)
        (tmp_path / f"pictures-{seed}").mkdir()
        ingested(tmp_path / f"pictures-{seed}", home, plan, seed)
        command("sfumato-site", "accept", plan, "--home", home.root, "--yes", *words)
    logs = tmp_path / "logs"
    logs.mkdir()
    with parties(logs) as at_work:
        out = at_work.coordinator("coordinator", coordinator, port)
        at_work.start("hidden", "sfumato-site", "run", "--home", hidden.root, *study)
        at_work.start("shown", "sfumato-site", "run", "--home", shown.root)
        at_work.end("coordinator")
    (logs / "hidden.log").unlink()  # the site's own, for its own people
    wanted = traces(hidden)
    assert json.loads((out / "published" / "manifest.json").read_text()), "published"
    assert name in (out / "published" / "labels.csv").read_text()
    require_none(out, wanted, 40)
    require_none(logs, wanted, 2)
    require_none(coordinator, wanted, 10)
    for form in ("dicom", "parquet", "webdataset", "png"):
        command("sfumato", "dataset", "convert", out / "published", "--to", form, "--out", tmp_path / form)
        require_none(tmp_path / form, wanted, 3)
    command("sfumato", "dataset", "card", out / "published", "--out", tmp_path / "cards")
    require_none(tmp_path / "cards", wanted, 5)
