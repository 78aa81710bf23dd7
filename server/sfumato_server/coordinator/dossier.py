"""What a coordinator can show of a study: its plan, the published set with every site's signed head, and its figure."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from sfumato_common.errors import ConfigError
from sfumato_common.evidence.facts import Facts, SetFacts, Source, Stated
from sfumato_common.package.manifest import parse_manifest
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.enrol import load_authority
from sfumato_server.publish.layout import ShardFiles
from sfumato_server.publish.manifest import LABELS, MANIFEST, PublishedManifest, parse_published
from sfumato_server.publish.verify import verify_statements


def coordinator_facts(home: CoordinatorHome, folder: Path) -> Facts:
    """The facts of the set in `folder`, which is verified first, by this home's own key.

    Raises VerificationError where it does not hold, ConfigError where there is none, or one of another plan.
    """
    plan = home.plan()
    found = verify_statements(folder, load_authority(home.root).public_key)
    data = (folder / MANIFEST).read_bytes()
    manifest = parse_published(data)
    if manifest.plan_hash != plan.study_digest:
        raise ConfigError(f"'{folder.name}' was published under another plan than this home's; name the right one")
    behind = f"the coordinator, key {found.coordinator_fingerprint}"
    return Facts(
        side="coordinator",
        plan=plan,
        plan_hash=plan.study_digest,
        plan_source=Source.of(f"{MANIFEST}: plan", data, behind),
        stated=_stated(folder, manifest, found.site_fingerprints),
        published=SetFacts(
            source=Source.of(MANIFEST, data, behind),
            images=_images(folder),
            left_out=dict(manifest.left_out),
            utility=_utility(home, plan),
            trusted=found.trusted,
        ),
    )


def _stated(folder: Path, manifest: PublishedManifest, fingerprints: Mapping[str, str]) -> dict[str, Stated]:
    """Each site's certificate; where its shards state several, each apart."""
    found: dict[str, dict[str, Stated]] = {}
    for line in manifest.shards:
        name = ShardFiles(line.site, line.part, line.shard).head
        data = (folder / name).read_bytes()
        certificate = parse_manifest(data).certificate
        own = found.setdefault(line.site, {})
        if all(one.certificate != certificate for one in own.values()):
            own[name] = Stated(certificate, Source.of(name, data, f"site {line.site}, key {fingerprints[line.site]}"))
    return {
        site if len(own) == 1 else f"{site} ({name})": stated
        for site, own in sorted(found.items())
        for name, stated in own.items()
    }


def _images(folder: Path) -> Counter[tuple[str, str]]:
    with (folder / LABELS).open(newline="", encoding="utf-8") as lines:
        return Counter((row["method"], row["guarantee"]) for row in csv.DictReader(lines))


def _utility(home: CoordinatorHome, plan: Plan) -> tuple[float, float | None, float | None, Source] | None:
    """The noised figure of the home's last study; a file of the coordinator that nobody signed."""
    try:
        data = home.result_file.read_bytes()
        figure = ((json.loads(data).get("utility") or {}).get("pooled")) or {}
    except (OSError, ValueError):
        return None
    if plan.utility is None or figure.get("auc") is None:
        return None
    source = Source.of(home.result_file.name, data, "the coordinator's own file, which nobody signed")
    return float(figure["auc"]), figure.get("low"), figure.get("high"), source
