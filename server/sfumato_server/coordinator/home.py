"""The coordinator's home folder: where everything that it keeps lives."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sfumato_common.errors import ConfigError
from sfumato_common.files import write_json
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.enrol.answered import FILE as RECEIPTS
from sfumato_server.publish.versions import FILE as VERSIONS
from sfumato_server.rounds.deadlines import Deadlines
from sfumato_server.status.overview import CONTACTS, PAGE, STATUS


@dataclass(frozen=True)
class CoordinatorHome:
    """Paths below one folder; nothing here creates anything but what its name says."""

    root: Path

    @property
    def plan_file(self) -> Path:
        """The resolved plan, as JSON."""
        return self.root / "plan.json"

    @property
    def superlink_secret(self) -> Path:
        """What opens the SuperLink's Control and Runtime APIs; there while the SuperLink runs."""
        return self.root / "superlink.secret"

    @property
    def status_file(self) -> Path:
        """What watchers read."""
        return self.root / STATUS

    @property
    def live_page(self) -> Path:
        """The live page: what a browser shows while the study runs, and after."""
        return self.root / PAGE

    @property
    def contacts_file(self) -> Path:
        """When each site was last heard at the front, in this run."""
        return self.root / CONTACTS

    @property
    def result_file(self) -> Path:
        """Outcome of the last study, for publishing."""
        return self.root / "result.json"

    @property
    def receipts_file(self) -> Path:
        """Which answers of each site came."""
        return self.root / RECEIPTS

    @property
    def checkpoints(self) -> Path:
        """Strategy states."""
        return self.root / "checkpoints"

    @property
    def starts(self) -> Path:
        """Public weights that stages start from, by the sha256 that the plan pins."""
        return self.root / "starts"

    @property
    def encoders(self) -> Path:
        """Files of given encoders, by the names that the plan says."""
        return self.root / "encoders"

    @property
    def given(self) -> Path:
        """Models of an earlier version that this home's plan is given, by the sha256 that it pins."""
        return self.root / "given"

    @property
    def versions_file(self) -> Path:
        """The signed list of the study's published versions, which of them is current, and what was withdrawn."""
        return self.root / VERSIONS

    @property
    def logs(self) -> Path:
        """Logs of the coordinator's processes."""
        return self.root / "logs"

    def seed(self) -> int:
        """Where the rounds' own draws begin: drawn once for this home, so that a backup of it goes on alike."""
        path = self.root / "seed.json"
        if not path.exists():
            write_json(path, {"seed": secrets.randbits(63)})
        return int(json.loads(path.read_text())["seed"])

    def plan(self) -> Plan:
        """The plan of this home. Raises ConfigError when there is none."""
        try:
            value = json.loads(self.plan_file.read_text())
        except (OSError, ValueError):
            raise ConfigError("this coordinator home holds no plan; run 'sfumato coordinator init' first") from None
        return parse(value, Plan, self.plan_file.name)

    def deadlines(self) -> Deadlines:
        """How long this run waits; what the plan states where no run said otherwise."""
        try:
            return Deadlines(**json.loads((self.root / "deadlines.json").read_text()))
        except OSError:
            return Deadlines.of(self.plan())

    def write_deadlines(self, deadlines: Deadlines) -> None:
        """Keep how long this run waits, for the process of the rounds."""
        write_json(self.root / "deadlines.json", asdict(deadlines))

    def nodes(self) -> dict[str, int]:
        """Registered SuperNode id of each site in the running SuperLink."""
        value: dict[str, Any] = json.loads((self.root / "nodes.json").read_text())
        return {site: int(node) for site, node in value.items()}

    def write_nodes(self, nodes: dict[str, int]) -> None:
        """Keep node ids as text: they do not fit a JSON double."""
        write_json(self.root / "nodes.json", {site: str(node) for site, node in nodes.items()})
