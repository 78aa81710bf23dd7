"""The coordinator: reached by this machine's network, the right one, one that knows the site, and of the same clock."""

from __future__ import annotations

from collections.abc import Iterator

from sfumato_client.egress.reaching import reach
from sfumato_client.egress.unreached import ABSENT, CLOCK_S
from sfumato_client.site.checks.finding import Finding, Subject
from sfumato_client.site.home import SiteHome
from sfumato_client.site.node_settings import node_settings
from sfumato_common.errors import ConfigError
from sfumato_common.locks import is_held

# what is said of a clock that is further away than this, and not yet refused
_NOTED_S = 60.0
_EARLY = "; before its study runs that is as it should be, and '--offline' leaves it out"


def reach_notes(home: SiteHome) -> list[str]:
    """What there is to say of the coordinator's address when it was just entered: nothing where it answers.

    A coordinator that runs no study yet answers nobody, so that this is no fault.
    """
    found = [finding for finding in coordinator(Subject(home)) if finding.state in ("wrong", "note")]
    if not found:
        return []
    said = [finding.said.removesuffix(_EARLY) for finding in found]
    return [*said, "if its study is not running yet, that is why; 'sfumato-site check' looks again"]


def coordinator(subject: Subject) -> Iterator[Finding]:
    """Join as the site's node does, and leave at once; not beside a node that runs."""
    home = subject.home
    try:
        settings = node_settings(home, port=0)
    except ConfigError:
        yield Finding("skipped", "the coordinator: the site is not enrolled with one yet")
        return
    if not subject.reach:
        yield Finding("skipped", "the coordinator: left alone, as '--offline' says")
        return
    if is_held(home.link):
        yield Finding(
            "skipped", "the coordinator: 'sfumato-site run' holds the line; 'sfumato-site status' tells of it"
        )
        return
    reached = reach(settings)
    if reached.problem:
        early = _EARLY if reached.problem == ABSENT else ""
        yield Finding("wrong", f"coordinator {settings.coordinator}: {reached.problem}{early}")
    else:
        yield Finding(
            "good", f"coordinator {settings.coordinator} is reached, is the one of the grant, and knows this site"
        )
    ahead = reached.ahead_s
    if ahead is None:
        yield Finding("skipped", "the clock beside the coordinator's: it told no time")
    elif abs(ahead) > _NOTED_S:
        side = "ahead of" if ahead > 0 else "behind"
        grave = abs(ahead) > CLOCK_S
        yield Finding(
            "wrong" if grave else "note",
            f"this machine's clock is {abs(ahead):.0f} s {side} the coordinator's, which takes {CLOCK_S:.0f} s: "
            "set it, and let it be set by NTP",
        )
    else:
        yield Finding("good", "this machine's clock is the coordinator's")
