"""The plan that the demo runs: a shipped one, fitted to the sites of a given index."""

from __future__ import annotations

from pathlib import Path

from sfumato_common.errors import ConfigError
from sfumato_common.strict import parse
from sfumato_common.study.load import load_plan
from sfumato_common.study.plan import Plan
from sfumato_server.demo.data import index_sites


def demo_plan(data: Path | None, configs: Path, modality: str = "chest", size: int | None = None) -> Plan:
    """The plan for phantoms of a modality and size, or for the index `data`. Raises ConfigError where there is none."""
    if size is not None or modality != "chest":
        named = configs / f"{modality}-{size or 128}.yaml"
        if data is not None or not named.exists():
            raise ConfigError(f"the demo has no plan '{named.name}' for phantoms; see the plans in '{configs.name}'")
        return load_plan(named)
    if data is None:
        return load_plan(configs / "demo.yaml")
    plan = load_plan(configs / "chest-xray.yaml")
    sites = index_sites(data)
    if set(sites) == set(plan.sites):
        return plan
    # another index: its sites take part with public sizes rounded to one digit; a real study agrees on them on paper
    values = plan.model_dump(mode="json")
    values["sites"] = {site: {"nominal_patients": max(10, _one_digit(count))} for site, count in sites.items()}
    values["federation"]["quorum"] = min(plan.federation.quorum, len(sites))
    return parse(values, Plan, f"the plan for '{data.name}'")


def _one_digit(count: int) -> int:
    power = int(10 ** (len(str(count)) - 1))
    return count // power * power
