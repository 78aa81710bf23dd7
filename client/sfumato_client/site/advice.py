"""What a site's people are to do next, in sentences: for whoever looks at a site that waits, works, or stands still."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato_common.command_line import duration_text

# work without a sign for so long is said to be so; it is ended after a quarter of an hour (`watch`)
_QUIET_S = 120.0
AT_REST = "nothing: the site is joined, and the coordinator asks when it needs something"
AT_WORK = "nothing: the site is at work"
_CODES = {
    "budget-exceeded": "a patient would have paid more than the policy's budget allows: nothing was touched",
    "policy-refused": "the site's policy forbids what was asked",
    "release-refused": "the gate approved nothing: its report is in 'local' of the home",
    "ledger-refused": "the ledger refuses: 'sfumato-site check' says why",
    "federation-failed": "the intake was not reached: may this machine connect to the coordinator's port?",
    "busy": "something else held the work; it is asked again",
    "verification-failed": "what was sent does not fit the plan: both sides must run one version",
}


def advise(view: Mapping[str, Any]) -> list[str]:
    """Sentences, the most pressing first; at least one."""
    said = [line for line in (view.get("ledger"), view["certificate"]) if line]
    if (step := _next_step(view)) is not None:
        return [*said, step]
    if view["waits"]:
        said.append(
            f"{', '.join(view['waits'])} waits for a steward: 'sfumato-site review' shows it, and takes the decision"
        )
    if (missing := view["stewards_missing"]) > 0:
        who = "a steward" if missing == 1 else f"{missing} stewards"
        said.append(f"the policy asks for {who} more than there are: 'sfumato-site steward add' before a release waits")
    match view["state"]:
        case "failed":
            return [*said, f"it ended: {view['reason']}", *_work(view)]
        case "killed":
            return [*said, "its process was killed; 'sfumato-site run' joins again, and goes on where it was"]
        case "not running" | "stopped":
            return [*said, *_work(view), "'sfumato-site run' joins the federation"]
        case "connecting":
            return [*said, *_away(view)]
        case "no answer":
            return [*said, *(_ended(view) or _away(view))]
    return [*said, *_work(view)] or [AT_REST]


def _away(view: Mapping[str, Any]) -> list[str]:
    """What is to be done while the coordinator is not reached: the cause has it where one is known."""
    goes_on = "this site tries again by itself, for 15 min"
    if view["reason"]:
        return [f"{view['reason']}; {goes_on}"]
    if view["state"] == "connecting":
        return [f"wait: {goes_on}; where it lasts, is the coordinator running, and may this machine reach its port?"]
    return [f"the coordinator is silent: ask its people; {goes_on}"]


def _next_step(view: Mapping[str, Any]) -> str | None:
    """The step of the first hour that is still to be done."""
    if not view["enrolled"]:
        return "give 'enrolment-request.json' to the coordinator, and take its grant with 'sfumato-site join'"
    if not view["ingested"]:
        return "read the images in: 'sfumato-site ingest'"
    if not view["studies"]:
        return "no plan is accepted here: 'sfumato-site accept plan.yaml' shows what it costs, and asks"
    return None


def _work(view: Mapping[str, Any]) -> list[str]:
    """What is to be said of the last question."""
    work = view["work"]
    if work is None:
        return []
    match work["state"]:
        case "working":
            quiet = view["now"] - work["sign"]
            if quiet > _QUIET_S:
                return [f"no sign of work for {duration_text(quiet)}; after 15 min it is ended, and asked again"]
            return [AT_WORK] if view["state"] == "joined" else []
        case "launched":
            return ["nothing: the launched job waits for its turn, or is at work; your scheduler says which"]
        case "hung":
            return ["the work hung and was ended; the coordinator asks again. Again and again? See 'logs/worker.log'"]
        case "killed":
            return ["the work's process was killed, for want of memory perhaps; the coordinator asks again"]
        case "refused" if not work["study"]:
            return [
                f"the coordinator asks under a plan that is not accepted here (hash {work['plan_hash'][:12]}): get its "
                "'plan.yaml', run 'sfumato-site accept', and tell the coordinator"
            ]
        case "refused":
            why = _CODES.get(work["code"], "the work failed")
            return [f"the last question was refused: {why}; 'local/errors/{work['reference']}.txt' of the home has all"]
    return _ended(view)


def _ended(view: Mapping[str, Any]) -> list[str]:
    """Where a release was sent, the site's part in that study is over."""
    work = view["work"]
    if work is not None and work["kind"] in ("send", "utility") and work["state"] == "answered":
        until = "run on until its coordinator has published, then Ctrl-C"
        return [f"nothing: '{work['study']}' has this site's release; {until}"]
    return []
