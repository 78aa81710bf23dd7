"""What a coordinator is to do next, in sentences: for whoever looks at a study that is waiting, silent or stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato_common.command_line import duration_text

# a site that tells its steps and makes none for so long
_STUCK_S = 900.0
_CODES = {
    "bad-reply": "its answer cannot be one of this plan: it may have more than twice its nominal patients, or another "
    "version of Sfumato; its people should see the log of their worker",
    "bundle-refused": "it refuses the app bundle; both sides must run one version of Sfumato",
    "revoked": "it was revoked, and is asked nothing more",
    "budget-exceeded": "a patient there would pay more than its policy allows; it goes on without this study",
    "ledger-refused": "its ledger refuses; its people should run 'sfumato-site ledger verify' and look at its log",
    "release-refused": "its gate approved nothing; its people find the report in 'local' of its home",
    "federation-failed": "it could not reach the intake; is this coordinator's port open to it?",
    "busy": "something else holds its work; it is asked again",
    "egress-refused": "its guard let an answer not pass; its people find why under the reference in its log",
    "verification-failed": "it does not trust what it was sent; both sides must run one version of Sfumato",
}
_ELSEWHERE = "'sfumato-site status' there says why"


def advise(view: Mapping[str, Any]) -> list[str]:
    """Sentences, the most pressing first; at least one."""
    missing = _named(view, "not enrolled")
    match view["phase"]:
        case "published":
            return ["give the folder 'published' of the results away, with the key that it is verified by"]
        case "publishing":
            return ["nothing: the published set is being written"]
        case "failed":
            return [f"it stopped: {view['reason']}", *_sites(view)]
        case "interrupted":
            return ["it was stopped from here; 'sfumato coordinator run' goes on from the last finished round"]
        case "killed":
            return ["its process was killed; 'sfumato coordinator run' goes on from the last finished round"]
        case "not started" if not view["stage"]:
            if missing:
                return [f"enrol {_list(missing)}: 'sfumato coordinator enrol' takes the request that each sends"]
            return ["'sfumato coordinator run' begins the study; the sites accept its plan and run 'sfumato-site run'"]
    if view["stage"] == "stopped":
        return [f"it stopped: {view['reason']}", *_sites(view)]
    said = _sites(view)
    if view["stage"] in ("", "join") and (absent := _named(view, "absent")):
        said.insert(0, f"waiting for {_list(absent)} to connect, whose people run 'sfumato-site run'; {joining(view)}")
    working = _named(view, "working")
    return said or [f"nothing: {_list(working)} at work" if working else "nothing"]


def joining(view: Mapping[str, Any]) -> str:
    """Who is here before a study begins, of the quorum, and when it begins or stops."""
    left = view["join_deadline_s"] - (view["now"] - view["began"] if view["began"] else 0.0)
    here, all_of, quorum = view["here"], len(view["sites"]), view["quorum"]
    who = f"{here} of {all_of} sites are here, the quorum is {quorum}"
    if here == all_of:
        return f"{who}: starting"
    if here >= quorum:
        return f"{who}: starting in {duration_text(left)}, or when all are here"
    return f"{who}: {quorum - here} more within {duration_text(left)}, or it stops"


def _sites(view: Mapping[str, Any]) -> list[str]:
    """What is to be done about single sites."""
    said = []
    for name, site in sorted(view["sites"].items()):
        code = site["code"]
        if site["state"] == "silent":
            quiet = f" for {duration_text(view['now'] - site['since'])}" if site["since"] else ""
            said.append(f"{name} is silent{quiet}: ask its people whether its machine and line are up; {_ELSEWHERE}")
        elif site["state"] == "refused" and code == "policy-refused":
            said.append(
                f"{name} refuses: it has not accepted this plan, or its policy forbids what was asked. Its people take "
                "'plan.yaml' and run 'sfumato-site accept'; a new 'coordinator run' asks it again"
            )
        elif site["state"] in ("refused", "failed"):
            said.append(f"{name}: {_CODES.get(code, f'it failed by itself; {_ELSEWHERE}')}")
        elif site["state"] == "review":
            held = f" for {duration_text(view['now'] - site['since'])}" if site["since"] else ""
            said.append(f"{name}: its stewards have the release{held}; nothing is to be done but wait, or call them")
        elif site["state"] == "revoked":
            said.append(f"{name}: {_CODES['revoked']}")
        elif site["step_since"] and view["now"] - site["step_since"] > _STUCK_S:
            quiet = duration_text(view["now"] - site["step_since"])
            said.append(f"{name} has made no step for {quiet}: ask its people; {_ELSEWHERE}")
    return said


def _named(view: Mapping[str, Any], state: str) -> list[str]:
    return sorted(name for name, site in view["sites"].items() if site["state"] == state)


def _list(names: list[str]) -> str:
    shown = names[:6]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
