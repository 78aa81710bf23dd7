"""Plan files: read, resolved where a budget sets the noise, and written out as sites accept them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfumato_common.errors import ConfigError
from sfumato_common.exchanges.choice import without_figure
from sfumato_common.strict import parse_document, read_document, yaml_text
from sfumato_common.study.budget import check_budget, resolve_budget
from sfumato_common.study.lineage import require_whole
from sfumato_common.study.plan import Plan
from sfumato_common.study.summed import among

_PROVISIONAL = 1.0
_KEY = "noise_multiplier"


def load_plan(path: Path) -> Plan:
    """The coordinator's plan file; one whose `budget` sets the noise is resolved. Raises ConfigError.

    A plan that is resolved already is taken as it is, after `check_budget`. A choice that can tell nothing is refused.
    """
    file = read_document(path)
    if not _needs_budget(file.value, file.name):
        return _checked(parse_document(file, Plan))
    stages = [{**stage, _KEY: _PROVISIONAL} for stage in file.value["stages"]]
    return _checked(resolve_budget(parse_document(replace(file, value={**file.value, "stages": stages}), Plan)))


def load_resolved_plan(path: Path) -> Plan:
    """A site's plan file: never one whose noise is still to be computed. Raises ConfigError."""
    file = read_document(path)
    if _needs_budget(file.value, file.name):
        raise ConfigError(
            f"{file.name}: 'budget' is not resolved into noise multipliers yet, and a site accepts only what is "
            "written out; ask the coordinator for the file that 'sfumato plan resolve' writes"
        )
    return _checked(parse_document(file, Plan))


def _checked(plan: Plan) -> Plan:
    """`plan`, unless its noise is not its budget's, or it would spend on a choice that can tell nothing."""
    check_budget(plan)
    require_whole(plan)
    summed = (plan.federation.quorum, among(plan)) if plan.secure_sum else None
    # who joins later may show what those of the start cannot
    if plan.chooses and not plan.joining and (why := without_figure(plan, summed)):
        raise ConfigError(
            f"plan '{plan.study}': stage 'choice' can only say 'no figure': {why}; nothing should be spent on it: "
            f"leave the stage out, with its share of the budget, and release '{plan.candidates[0]}' instead of 'best'"
        )
    return plan


def plan_text(plan: Plan) -> str:
    """A plan as the YAML file that `load_resolved_plan` reads."""
    return yaml_text(plan.model_dump(mode="json"))


def _needs_budget(value: Any, name: str) -> bool:
    """Whether a plan's `budget` is to set the noise of its stages. Raises ConfigError when only some state theirs."""
    if not isinstance(value, Mapping) or value.get("budget") is None:
        return False
    stages = value.get("stages")
    if not isinstance(stages, Sequence) or not all(isinstance(stage, Mapping) for stage in stages):
        return False  # wrong in a way that the schema explains better
    stated = [str(stage.get("kind")) for stage in stages if _KEY in stage]
    if stated and len(stated) < len(stages):
        raise ConfigError(
            f"{name}: 'budget' sets the noise of all stages; leave out noise_multiplier of stage '{stated[0]}'"
        )
    return not stated
