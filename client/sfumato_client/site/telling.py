"""What a site's console says, in lines: the facts of an `overview`, without a clock that would repeat them.

`sfumato-site run` prints them as they change where there is no terminal, and `status` shows the same words.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sfumato_client.site.advice import AT_REST, AT_WORK
from sfumato_common.accounting.accountant import epsilon_text
from sfumato_common.command_line import duration_text, step_text

View = Mapping[str, Any]
# what an answer to each kind of question holds; whatever goes wrong leaves as a code and a reference, never as text
_LEAVES = {
    "hello": "that this site takes part; no patient is looked at",
    "stage": "the noised result of this round, charged before a patient is read",
    "make": "that the release is made, or not yet; no image",
    "send": "the signed packages that were approved, and that they arrived",
    "utility": "a noised histogram of scores of holdout patients, charged before one is read",
    "sum-values": "a masked and noised sum, charged before a patient is read",
}
_OF_A_SUM = "keys and shares of a secure sum; no patient is looked at"
_BARE = "the result of this round WITHOUT differential privacy, as the policy allows for this study"


def told(view: View) -> dict[str, str]:
    """Lines by what they are about; a line changes when something happened."""
    lines = {"connection": connection_line(view)}
    if view["work"] is not None:
        lines["work"] = question_line(view)
    for study in view["studies"]:
        lines[f"study {study['plan_hash']}"] = study_line(study)
        lines[f"cost {study['plan_hash']}"] = cost_line(study)
    lines["paid"] = paid_line(view)
    todo = [line for line in view["next"] if line not in (AT_REST, AT_WORK)]
    return lines | {f"next {number}": f"next: {line}" for number, line in enumerate(todo)}


def connection_line(view: View) -> str:
    """Connected or not, to which coordinator, since when, and why."""
    whom = f"coordinator {view['address']}" if view["address"] else "a coordinator"
    since = f" since {time.strftime('%H:%M:%S', time.localtime(view['since']))}" if view["since"] else ""
    why = f": {view['reason']}" if view["reason"] else ""
    match view["state"]:
        case "joined":
            return f"connected to {whom}{since}"
        case "connecting" | "no answer":
            return f"not connected to {whom}{since}{why or ': no answer yet'}"
        case "not running":
            return f"not connected to {whom}: 'sfumato-site run' does not run"
        case "stopped":
            return f"stopped{since}: nothing is answered until 'sfumato-site run' starts again; nothing is lost"
    return f"{view['state']}{since}{why}"


def question_line(view: View) -> str:
    """The last question: what it asks and what leaves when, or what became of it."""
    work = view["work"]
    # a release is asked for again and again while it is made, or people have it: that is no news
    again = work["kind"] in ("make", "send") and work["state"] in ("goes on", "waits for a steward")
    if view["waits"] and (again or work["kind"] == "send"):
        return f"asked: {question(work)}; nothing more leaves until a steward has decided"
    if work["state"] == "working" or again:
        return f"asked: {question(work)}; leaves {when(view)}: {leaves(view)}"
    if work["ended"] is None:
        return f"{work['state']}: {question(work)}"
    code = f" ({work['code']})" if work["code"] else ""
    return f"{work['state']}{code}: {question(work)}, after {duration_text(work['ended'] - work['began'])}"


def question(work: View) -> str:
    """What was asked: 'gan, round 2 of 5'."""
    rounds = f", round {work['round']} of {work['rounds']}" if work["rounds"] > 1 else ""
    return f"{work['stage'] or work['kind']}{rounds}"


def leaves(view: View) -> str:
    """What leaves the site with the answer under way."""
    work = view["work"]
    bare = any(study["plan_hash"] == work["plan_hash"] and not study["private"] for study in view["studies"])
    return _BARE if bare and work["kind"] == "stage" else _LEAVES.get(work["kind"], _OF_A_SUM)


def when(view: View) -> str:
    """When it does: as the policy's answer interval says."""
    interval = view["answer_interval_s"]
    return f"when done, at a whole multiple of {interval:g} s after the question" if interval else "when done"


def study_line(study: View) -> str:
    """One accepted study: rounds paid for, and the parts of its release."""
    stages = ", ".join(f"{row['stage']} {row['done']}/{row['rounds']}" for row in study["stages"])
    parts = ", ".join(f"{part} {state}" for part, state in study["release"].items())
    return f"study {study['study']}: {stages}; release: {parts}"


def cost_line(study: View) -> str:
    """What the study takes a patient to, over all studies: as `accept` forecasts it."""
    before, after = epsilon_text(study["epsilon_before"]), epsilon_text(study["epsilon_after"])
    return f"study {study['study']} takes a patient from epsilon {before} to {after} at most"


def paid_line(view: View) -> str:
    """What a patient has paid, of what the policy allows."""
    budget = view["budget"]
    return (
        f"a patient has paid epsilon {epsilon_text(view['epsilon'])} of {budget['epsilon']:g} at delta "
        f"{budget['delta']:g} (unit patient, add/remove), over all studies"
    )


def working_line(view: View) -> str:
    """How far the work is, with the clock; '' where nothing is under way."""
    work = view["work"]
    if work is None or work["state"] not in ("working", "launched", "hung", "killed"):
        return ""
    steps = f", {step_text(work['step'], work['steps'], work['kind'])}" if work["step"] is not None else ""
    took = duration_text((work["ended"] or view["now"]) - work["began"])
    sign = f", last sign of work {duration_text(view['now'] - work['sign'])} ago"
    return f"{work['state']}: {question(work)}{steps}, since {took}{sign}"


def beat_line(view: View) -> str:
    """A sign of life: how the site stands, in one line with its clocks."""
    heard = f", coordinator heard {duration_text(view['now'] - view['heard'])} ago" if view["heard"] else ""
    state = {"joined": "connected", "no answer": "not connected"}.get(view["state"], view["state"])
    return f"{state}{heard}; {working_line(view) or 'at rest: nothing leaves but heartbeats'}"
