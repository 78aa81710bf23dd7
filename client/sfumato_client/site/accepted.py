"""Files of a home that people accepted or wrote: plans, policy, address; and what a request may name of its plan."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from sfumato_common.errors import ConfigError, PolicyRefusal
from sfumato_common.strict import parse, parse_document
from sfumato_common.strict.document import document, file_text
from sfumato_common.study.lineage import given_models, version_of
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_common.study.stages import Stage

ENDED = ".ended"  # of the file of a plan that the site has left


def read_plan(path: Path) -> Plan:
    """The plan of a file that `SiteHome.pin` wrote. Raises PolicyRefusal where it is not the one that it was."""
    try:
        plan = parse(json.loads(path.read_text()), Plan, path.name)
    except (ConfigError, ValueError):
        raise PolicyRefusal("the stored plan cannot be read any more; accept it again") from None
    if plan.digest != path.stem:
        raise PolicyRefusal("the stored plan does not have the hash it is filed under; accept it again")
    return plan


def require_free_name(folders: Iterable[Path], own: Path, plan: Plan) -> None:
    """Raise PolicyRefusal where a plan of `folders` has the name and version of `plan`, and is not it, in `own`."""
    for folder in folders:
        for path in [*sorted(folder.glob("*.json")), *sorted(folder.glob(f"*{ENDED}"))]:
            other = path.stem != plan.digest or folder != own
            if other and (known := read_plan(path)).study == plan.study and version_of(known) == version_of(plan):
                raise PolicyRefusal(
                    f"another plan named '{plan.study}' was accepted here before; ask for this one under a new name"
                )


def trained_stage(plan: Plan, kind: str, number: int) -> Stage:
    """The stage of which round `number` is asked. Raises PolicyRefusal for one that `plan` does not train, or not so.

    A stage whose model is given was paid for under another plan: nothing is trained, and nothing charged.
    """
    try:
        stage = plan.stage(kind)
    except KeyError:
        raise PolicyRefusal("the request names a stage that the accepted plan does not have") from None
    if kind in given_models(plan):
        raise PolicyRefusal("the request trains a model that the accepted plan is given")
    if not 1 <= number <= stage.rounds:
        raise PolicyRefusal("the request names a round beyond the accepted plan")
    return stage


def read_address(path: Path) -> str:
    """host:port of the coordinator. Raises ConfigError before `join`."""
    try:
        return str(json.loads(path.read_text())["coordinator"])
    except (OSError, ValueError, KeyError):
        raise ConfigError("this site is not enrolled yet; run 'sfumato-site join GRANT ...' first") from None


def read_policy(path: Path) -> Policy:
    """The policy as its file has it now. Raises ConfigError when it is absent or wrong."""
    return _policy_of(file_text(path), path.name)


@lru_cache(maxsize=8)
def _policy_of(text: str, name: str) -> Policy:
    """Parsed once for the same text: a look at a home asks for its policy a dozen times."""
    return parse_document(document(text, name), Policy)
