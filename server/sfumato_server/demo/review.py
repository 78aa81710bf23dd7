"""The demo with a person in it: the first site's policy asks a steward, whose page is open while the study runs."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sfumato_common.command_line import say
from sfumato_common.errors import FederationError
from sfumato_common.files import write_atomic
from sfumato_common.study.policy import Policy
from sfumato_common.supervise import Child

STEWARD = "steward"
_SECONDS = 600.0


@dataclass(frozen=True)
class Reviewed:
    """The site at which a person decides, and the passphrase of the one steward there."""

    site: str
    passphrase: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)

    def policy(self, policy: Policy) -> Policy:
        """The site's policy: declared parts wait for a steward, and the coordinator may be told so."""
        review = policy.release.review.model_copy(update={"by": "formal-auto", "queue": "told"})
        return policy.model_copy(update={"release": policy.release.model_copy(update={"review": review})})

    def hire(self, home: Path, run: Callable[..., object]) -> None:
        """Make the steward, by the site's own command: `run` takes its words."""
        file = home / "steward.passphrase"  # the demo is every party: elsewhere only the person knows it
        write_atomic(file, self.passphrase + "\n", mode=0o600)
        run("steward", "add", STEWARD, "--passphrase-file", str(file))

    def open_page(self, home: Path, environment: Mapping[str, str]) -> Child:
        """Start the steward's page and say where it is. Raises FederationError where it does not start."""
        log = home / "logs" / "review.log"
        command = [str(Path(sys.executable).parent / "sfumato-site"), "review", "--home", str(home)]
        child, end = Child("review", command, environment, log), time.monotonic() + _SECONDS
        while time.monotonic() < end and child.poll() is None:
            if address := next((line for line in log.read_text().splitlines() if line.startswith("http://")), ""):
                self._tell(address)
                return child
            time.sleep(0.2)
        child.stop()
        raise FederationError(f"the steward's page did not start; '{log.name}' says why")

    def _tell(self, address: str) -> None:
        say(
            f"site '{self.site}' asks its steward before the declared part of its release leaves. When the study is "
            f"there, open\n{address}\nand decide as '{STEWARD}', passphrase {self.passphrase}"
        )
