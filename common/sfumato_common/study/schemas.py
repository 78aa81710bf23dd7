"""JSON Schemas of the files that a study's people write; a plan's file may leave its noise to its budget."""

from __future__ import annotations

from typing import Any

from sfumato_common.exchanges import EXCHANGES
from sfumato_common.strict.schema import json_schema
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy


def plan_schema() -> dict[str, Any]:
    """Of a plan, resolved or not."""
    schema = json_schema(Plan, "Sfumato: plan of a study")
    for record in EXCHANGES.values():
        schema["$defs"][record.settings.__name__]["required"].remove("noise_multiplier")
    return schema


def policy_schema() -> dict[str, Any]:
    """Of a site's policy."""
    return json_schema(Policy, "Sfumato: policy of a site")
