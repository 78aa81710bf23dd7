"""Another plan in the place of one that nobody has answered: same study, same CA, same enrolments."""

from __future__ import annotations

from sfumato_common.errors import ConfigError
from sfumato_common.files import write_atomic, write_json
from sfumato_common.locks import exclusive
from sfumato_common.study.lineage import version_of
from sfumato_common.study.load import plan_text
from sfumato_common.study.plan import Plan
from sfumato_common.study.simulated import require_real
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.enrol import Registry
from sfumato_server.enrol.answered import read_studies
from sfumato_server.enrol.copies import require_only
from sfumato_server.rounds.encoders import load_encoders
from sfumato_server.rounds.starts import load_starts


def replace_plan(home: CoordinatorHome, plan: Plan) -> Plan:
    """Let `plan` take the place of the plan of `home`; the one before.

    Raises ConfigError for another study or version, where a site has answered (it was charged under the plan that it
    accepted), where an enrolled site is not in it, or a file that it pins is not there; BusyError while the study runs.
    """
    require_real(plan.study, *plan.sites)
    require_only(home.root)
    with exclusive(home.root, "this coordinator"):
        before = home.plan()
        if (plan.study, version_of(plan)) != (before.study, version_of(before)):
            raise ConfigError(
                f"this home is of study '{before.study}', version {version_of(before)}: another study has a home of "
                "its own, and another version comes by 'sfumato study rerelease'"
            )
        if any(read_studies(home.receipts_file).values()) or home.checkpoints.exists():
            raise ConfigError(
                f"sites have answered under the plan of '{before.study}', and were charged by it: it stays. Longer "
                "waits need no other plan ('sfumato coordinator run --deadline'); anything else needs another name"
            )
        if missing := sorted(Registry(home.root).in_force() - set(plan.sites)):
            raise ConfigError(f"enrolled, and not in the new plan: {', '.join(missing)}; revoke or add them")
        load_starts(home.starts, plan)
        load_encoders(home.encoders, plan)
        write_json(home.plan_file, plan.model_dump(mode="json"))
        write_atomic(home.root / "plan.yaml", plan_text(plan))
        (home.root / "deadlines.json").unlink(missing_ok=True)
    return before
