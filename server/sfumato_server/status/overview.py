"""All that is known of a study, for its coordinator: read from the files of the home, so that any process may ask.

Board, contacts, phase and register in one mapping, whose names scripts may rely on. Nothing in it is data-dependent
but what a site's own policy let out: the step of its work, if it tells that.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfumato_common.study.costs import stage_events
from sfumato_common.study.plan import Plan
from sfumato_common.study.shards import release_images
from sfumato_common.study.stages import Stage
from sfumato_common.study.summed import UTILITY, exchanges_of, is_summed
from sfumato_common.study.words import Part
from sfumato_server.enrol import Registry
from sfumato_server.publish.progress import read_progress
from sfumato_server.status.advice import advise
from sfumato_server.status.board import NOT_ASKED, read_board
from sfumato_server.status.contacts import SILENT_S, read_contacts
from sfumato_server.status.phase import read_phase
from sfumato_server.status.published import published_versions
from sfumato_server.status.releases import releases

STATUS, CONTACTS, PAGE = "status.json", "contacts.json", "live.html"
_STATES = {"online": "connected", "lost": "failed"}
# words for a site of which nothing came, in the board's codes
_SILENT = ("silent", "unreachable", NOT_ASKED)
_HERE = ("connected", "working", "review", "done")
_AFTER_RELEASE = ("utility", "completed", "stopped")


def overview(root: Path, plan: Plan) -> dict[str, Any]:
    """The study of the home `root` as it stands now; times are seconds since 1970, durations seconds."""
    board, contacts, phase = read_board(root / STATUS), read_contacts(root / CONTACTS), read_phase(root)
    board = board if board is not None and board.get("plan_hash") == plan.study_digest else None
    going = phase["phase"] in ("running", "publishing", "not started")  # not started: a study without Flower
    found = releases(root, plan, board)
    sites = _sites(root, plan, board, contacts, phase["phase"], found)
    view = {
        "study": plan.study,
        "plan_hash": plan.study_digest,
        "private": plan.private,
        "phase": phase["phase"],
        "reason": phase["reason"] or (board or {}).get("reason", ""),
        "stage": board["stage"] if board else "",
        "round": board["round"] if board else 0,
        "rounds": board["rounds"] if board else 0,
        "began": board["began"] if board else None,
        "stages": _stages(plan, board, phase["phase"]),
        "releases": found,
        "sites": sites,
        "here": sum(site["state"] in _HERE for site in sites.values()),
        "quorum": plan.federation.quorum,
        "join_deadline_s": plan.federation.join_deadline_s,
        "chosen": board["chosen"] if board else "",
        "epsilon_spent": board["epsilon_spent"] if board else 0.0,
        "epsilon_budget": plan.privacy.epsilon,
        "delta": plan.privacy.delta,
        "bytes_down": board["bytes_down"] if board else 0,
        "bytes_up": board["bytes_up"] if board else 0,
        "exchanges": board["exchanges"] if board else [],
        "elapsed_s": _elapsed(board, phase),
        "left_s": _left(plan, board, sites) if board and going else None,
        "sheet": _sheet(board),
        "publishing": read_progress(root) if phase["phase"] == "publishing" else None,
        "report": phase["report"],
        **published_versions(root),
        "now": round(time.time(), 1),
    }
    return {**view, "next": advise(view)}


def _sheet(board: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The newest contact sheet: its file, its figures in one line, and what is odd about it."""
    sheet = board["sheet"] if board else None
    return sheet and {"file": sheet["file"], "figures": sheet_figures(sheet), "remark": sheet["remark"]}


def sheet_figures(sheet: Mapping[str, Any]) -> str:
    """A sheet's figures in one line, beside the spectral model's."""
    return (
        f"spread {sheet['spread']:.1f} (spectral {sheet['usual_spread']:.1f}), "
        f"clamped {sheet['clamped']:.1%} ({sheet['usual_clamped']:.1%}), "
        f"mean image off by {sheet['distance']:.1f} grey levels"
    )


def _elapsed(board: Mapping[str, Any] | None, phase: Mapping[str, Any]) -> float:
    if phase["begun"] is None:
        return float(board["elapsed_s"]) if board else 0.0
    if phase["phase"] == "killed":
        return float(board["elapsed_s"]) if board else 0.0
    end = time.time() if phase["phase"] in ("running", "publishing") else phase["since"]
    return float(round(end - phase["begun"], 1))


def _left(plan: Plan, board: Mapping[str, Any], sites: Mapping[str, Any]) -> float | None:
    """Seconds to the end: for each exchange to come the median of its kind so far, else of all; None before any.

    The one under way takes what the slowest site that tells its step makes likely; None when it takes longer than that.
    """
    here, gone = board["stage"], time.time() - board["began"]
    seen: dict[str, list[float]] = {}
    for item in board["exchanges"]:
        seen.setdefault(item["stage"], []).append(item["seconds"])
    steps = [gone * site["steps"] / site["step"] for site in sites.values() if site["step"]]
    if steps:
        seen.setdefault(here, []).append(max(steps))
    if not seen:
        return None
    usual = statistics.median(value for values in seen.values() for value in values)
    coming = [stage.kind for stage in plan.stages for _ in range(_exchanges(plan, stage, board))]
    coming += ["make", "send", *(["utility"] if plan.utility else [])]
    coming = coming[coming.index(here) :] if here in coming else coming
    left = [statistics.median(seen[kind]) if kind in seen else usual for kind in coming]
    if here in coming and left:
        whole = max(steps) if steps else left[0]
        if gone > whole:
            return None  # longer than any of its kind so far: nobody knows
        left[0] = whole - gone
    return float(round(sum(left)))


def _exchanges(plan: Plan, stage: Stage, board: Mapping[str, Any]) -> int:
    """How many exchanges of a stage are to come: a round each, or the steps of a secure sum."""
    done = board["done"].get(stage.kind, 0)
    if done >= stage.rounds or not is_summed(plan, stage.kind):
        return int(stage.rounds - done)
    had: int = sum(item["stage"] == stage.kind for item in board["exchanges"])
    return max(1, exchanges_of(len(stage_events(plan, stage))) - int(had))


def _stages(plan: Plan, board: Mapping[str, Any] | None, phase: str) -> list[dict[str, Any]]:
    """The study's way: joining, the plan's stages, release, the figure where the plan has one, publishing."""
    done = board["done"] if board else {}
    here = board["stage"] if board else ""
    rows = [(stage.kind, stage.rounds, done.get(stage.kind, 0), here == stage.kind) for stage in plan.stages]
    begun = any(count for _, _, count, _ in rows) or here in done
    after = here in ("make", "send", "utility", "completed")
    rows.insert(0, ("join", 1, int(begun or after), here in ("join", "hello")))
    rows.append(("release", 1, int(here in ("utility", "completed")), here in ("make", "send")))
    if plan.utility is not None:
        rows.append(("utility", 1, int(here == "completed"), here == "utility"))
    rows.append(("publish", 1, int(phase == "published"), phase == "publishing"))
    return [
        {
            "stage": name,
            "rounds": rounds,
            "done": count,
            "state": "done" if count >= rounds else "now" if now else "begun" if count else "to come",
        }
        for name, rounds, count, now in rows
    ]


def _sites(
    root: Path,
    plan: Plan,
    board: Mapping[str, Any] | None,
    contacts: Mapping[str, Any],
    phase: str,
    found: Mapping[str, Mapping[Part, str]],
) -> dict[str, dict[str, Any]]:
    registered, now = Registry(root).sites(), time.time()
    sites: dict[str, dict[str, Any]] = {}
    for name in plan.sites:
        contact = contacts.get(name, {})
        heard = contact.get("heard")
        state = board["sites"].get(name, "absent") if board else "absent"
        code = board["codes"].get(name, "") if board else ""
        since = board["since"].get(name) if board else None
        state = "silent" if state == "lost" and code in _SILENT else _STATES.get(state, state)
        if state == "review" and set(found[name].values()) == {"admitted"}:
            state = "done"  # all parts are here; the site says so when it is next asked
        quiet = heard is not None and now - heard > SILENT_S
        if phase == "running" and quiet and state in ("working", "review", "connected"):
            state, since = "silent", heard
        elif state == "silent" and heard is not None:
            # what the front heard is truer than the last answer: it may be back already
            state, since = ("silent", heard) if quiet else ("connected", since)
        elif state == "absent" and heard is not None and not quiet:
            state, since = "connected", heard
        if phase in ("killed", "failed", "interrupted") and state in ("working", "review", "connected"):
            state = "not known"
        if name not in registered:
            state, since = "not enrolled", None
        elif registered[name].status == "revoked":
            state = "revoked"
        # the figure that is asked after a release, and may be withheld, is not what became of the site
        note, released = "", "admitted" in found[name].values()
        if released and board and board["stage"] in _AFTER_RELEASE and state in ("refused", "failed", "silent"):
            note, state, code = f"its release is here; {UTILITY}: {code or state}", "done", ""
        # a step that was told before the question came is of another
        asked = board["began"] if board else 0.0
        told = state == "working" and contact.get("steps") == _steps(plan, board, name) and heard >= asked
        sites[name] = {
            "state": state,
            "code": "" if code == NOT_ASKED else code,
            "note": note,
            "since": since,
            "heard": heard,
            "step": contact.get("step") if told else None,
            "steps": contact.get("steps") if told else None,
            "step_since": contact.get("step_since") if told else None,
            "epsilon": board["epsilon_by_site"].get(name, 0.0) if board else 0.0,
        }
    return sites


def _steps(plan: Plan, board: Mapping[str, Any] | None, site: str) -> int:
    """Steps of a round of the stage under way, images of a release: what a site must tell too; 0 for anything else."""
    known: dict[str, int] = {stage.kind: stage.steps for stage in plan.stages}
    known |= dict.fromkeys(("make", "send"), release_images(plan, site) if site in plan.sites else 0)
    return known.get(board["stage"], 0) if board else 0
