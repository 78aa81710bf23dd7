"""With real processes: a second version, after a patient withdrew at one site, one left, and one joined. Linux only."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image
from support.enrolment import enrol_site, keep_grant
from support.federations import make_federation
from support.homes import make_home
from support.parties import WITHOUT, address, parties
from support.processes import PROGRAMS, SMALL_PLAN, SMALL_POLICY

from sfumato_client.dataset.splits import keyed_split
from sfumato_common.accounting.members import pseudonym
from sfumato_common.crypto.identity import load_identity
from sfumato_common.phantom import arrays
from sfumato_common.study.load import load_plan, plan_text
from sfumato_common.supervise import free_port
from sfumato_server.enrol import load_authority

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
    pytest.mark.timeout(900),
]
POLICY = {**SMALL_POLICY, "answer_interval_s": 0.0, "withdrawals": "told"}
POLICY.pop("site")


def command(program, *words, code=0):
    done = subprocess.run(
        [PROGRAMS / program, *map(str, words)], env=WITHOUT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout


def pictures(folder, name, patients=40):
    images, labels, owners = arrays(sum(name.encode()), patients, SMALL_PLAN["image"]["size"])
    folder.mkdir()
    rows = ["file,patient_id,label"]
    for number, (pixels, label, owner) in enumerate(zip(images, labels, owners, strict=True)):
        grey = np.clip((pixels + 1.0) * 127.5, 0, 255).astype(np.uint8).squeeze()
        Image.fromarray(grey).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{name}-{owner},{SMALL_PLAN['labels'][int(label)]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def source(folder, withdrawn=()):
    said = {"kind": "png", "folder": str(folder), "labels": str(folder / "labels.csv"), "withdrawn": list(withdrawn)}
    (folder / "source.yaml").write_text(yaml.safe_dump({**said, "answers": {"gone": "remove"}}))
    return folder / "source.yaml"


def run_version(root, name, coordinator, homes):
    """One `coordinator run`, with each site's own process."""
    port = free_port()
    for home in homes:
        address(home, port)
    with parties(root) as at_work:
        out = at_work.coordinator(name, coordinator, port)
        for home in homes:
            at_work.start(f"{name}-{home.root.name}", "sfumato-site", "run", "--home", home.root)
        at_work.end(name)
    return out


def entries(home):
    with home.open_ledger() as ledger:
        ledger.verify()
        return ledger.entries()


def enrolled(coordinator, home):
    identity = load_identity(home.identity)
    keep_grant(coordinator, identity, enrol_site(coordinator, identity))


def test_a_version_with_a_withdrawn_patient_and_a_joined_site_is_published_and_verified(tmp_path):
    first = make_federation(tmp_path, copy.deepcopy(SMALL_PLAN), POLICY)
    root, homes = first.coordinator.root, {site: first.home(site) for site in first.sites}
    for home in homes.values():
        enrolled(root, home)
    alder = homes["alder"]
    pictures(tmp_path / "pictures", "alder")
    command("sfumato-site", "fingerprint", "--home", alder.root, "--out", tmp_path / "alder.pem")
    for path in alder.store.iterdir():
        path.unlink()
    alder.store.rmdir()
    plan_file = tmp_path / "plan.yaml"
    plan_file.write_text(plan_text(first.plan))
    command("sfumato-site", "ingest", "--home", alder.root, source(tmp_path / "pictures"), "--plan", plan_file)
    one = run_version(tmp_path, "one", root, list(homes.values()))
    before = {site: entries(home) for site, home in homes.items()}

    # the patient's pixels go; the ledger keeps what was paid, and who was in which cohort
    key = alder.split_key()
    gone = next(f"alder-{n}" for n in range(40) if keyed_split(key, f"alder-{n}") == "train")
    assert pseudonym(key, gone) in alder.open_store().members("train").train
    update = source(tmp_path / "pictures", [gone])
    command("sfumato-site", "ingest", "--update", "--home", alder.root, update, "--plan", plan_file)
    assert pseudonym(key, gone) not in alder.open_store().members("train").train
    assert entries(alder) == before["alder"]

    # what it takes is said first; then the home of the next version is made
    words = [
        "study",
        "rerelease",
        "--home",
        root,
        "--left",
        "birch",
        "--patient-withdrew",
        "alder",
        "--join",
        "dahlia=40",
    ]
    said = json.loads(command("sfumato", *words, "--dry-run", "--json"))["lines"]
    assert {line["who"] for line in said} == {"", "alder", "birch", "cedar", "dahlia"}
    second = tmp_path / "coordinator-2"
    command("sfumato", *words, "--out", second)
    plan = load_plan(second / "plan.yaml")
    assert set(plan.sites) == {"alder", "dahlia"}
    command("sfumato-site", "leave", "small", "--home", homes["birch"].root)
    command("sfumato-site", "accept", second / "plan.yaml", "--home", alder.root, "--yes")
    dahlia = make_home(tmp_path / "sites" / "dahlia", "dahlia", plan, POLICY, 40)
    enrolled(second, dahlia)
    two = run_version(tmp_path, "two", second, [alder, dahlia])

    assert entries(alder) == before["alder"], "its new images are drawn from what was paid for"
    assert entries(homes["birch"]) == before["birch"]
    assert entries(homes["cedar"]) == before["cedar"]
    assert entries(dahlia) == []
    (tmp_path / "key.pem").write_bytes(load_authority(root).public_key)
    words = ["--key", tmp_path / "key.pem", "--site-key", f"alder={tmp_path / 'alder.pem'}"]
    words += ["--status", two / "versions.json", "--seen", tmp_path / "seen.json", "--json"]
    new = json.loads(command("sfumato", "dataset", "verify", two / "published", *words))
    assert set(new["sites"]) == {"alder", "birch", "cedar", "dahlia"}
    assert (new["version"]["number"], new["version"]["state"]) == (2, "current")
    stones = {(stone["site"], stone["what"], stone["images"]) for stone in new["version"]["tombstones"]}
    assert stones == {("birch", "site-left", "stay"), ("alder", "patient-withdrew", "regenerated")}
    old = json.loads(command("sfumato", "dataset", "verify", one / "published", *words))
    assert (old["version"]["state"], old["version"]["superseded_by"]) == ("superseded", 2)
    words[words.index(two / "versions.json")] = one / "versions.json"
    command("sfumato", "dataset", "verify", one / "published", *words, code=6)

    # a version that asks nobody needs no process of any site
    third = tmp_path / "coordinator-3"
    command("sfumato", "study", "rerelease", "--home", second, "--withdrew", "cedar", "--out", third)
    command("sfumato", "coordinator", "run", "--home", third, "--out", tmp_path / "three", "--port", free_port())
    words[words.index(one / "versions.json")] = tmp_path / "three" / "versions.json"
    last = json.loads(command("sfumato", "dataset", "verify", tmp_path / "three" / "published", *words))
    assert set(last["sites"]) == {"alder", "birch", "dahlia"}
    assert (last["version"]["number"], last["version"]["state"]) == (3, "current")
