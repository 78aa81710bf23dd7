"""Admitting a site to a study that runs: its entry is added to the plan, and nobody else's changes."""

from __future__ import annotations

from sfumato_common.errors import ConfigError
from sfumato_common.files import write_atomic, write_json
from sfumato_common.locks import in_turn
from sfumato_common.strict import parse
from sfumato_common.study.load import plan_text
from sfumato_common.study.plan import Plan
from sfumato_common.study.simulated import require_real
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.enrol.copies import require_only


def admit_site(home: CoordinatorHome, site: str, nominal_patients: int) -> Plan:
    """Add `site` to the plan of `home`, which rounds and intake read anew; the plan as that site accepts it.

    The same site again is harmless. Raises ConfigError where the plan says no 'joining: later', and for another number
    of patients than the site has: what it accepted, and is charged by, would change.
    """
    require_real(site)
    require_only(home.root)
    with in_turn(home.root / "admitting"):
        plan = home.plan()
        if not plan.joining:
            raise ConfigError(
                f"the sites of study '{plan.study}' are part of what every site accepted: only a plan that says "
                "'joining: later' takes more; make another study for it"
            )
        known = plan.sites.get(site)
        if known is not None and known.nominal_patients != nominal_patients:
            raise ConfigError(
                f"site '{site}' is in the plan with {known.nominal_patients} nominal patients, which is part of what "
                "it accepts and is charged by: nothing was changed"
            )
        if known is None:
            values = plan.model_dump(mode="json")
            values["sites"][site] = {"nominal_patients": nominal_patients}
            plan = parse(values, Plan, "plan")
            write_json(home.plan_file, plan.model_dump(mode="json"))
            write_atomic(home.root / "plan.yaml", plan_text(plan))
        return plan.at_site(site)
