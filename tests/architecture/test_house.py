"""The house's own rules that no linter holds: sizes, pins, tables and what the shipped configuration promises."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from sfumato_client.anonymise import ANONYMISERS
from sfumato_client.site.admission import check_policy
from sfumato_common.errors import ConfigError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.base import import_named
from sfumato_common.strict import load_yaml
from sfumato_common.study.forecast import forecast
from sfumato_common.study.latents import Latent
from sfumato_common.study.load import load_plan, load_resolved_plan, plan_text
from sfumato_common.study.policy import Policy
from sfumato_common.study.release import Grouped, Sampling
from sfumato_common.study.stages import Stage, StageKind
from sfumato_common.study.words import Method

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    path
    for side in ("common", "client", "server")
    for path in sorted((ROOT / side).rglob("*.py"))
    if "_pb2" not in path.name
]


@cache  # a budget takes seconds to resolve
def shipped(name):
    return load_plan(ROOT / "configs" / name)


def test_modules_are_one_idea_each():
    assert len(MODULES) > 80
    long = {path.name: lines for path in MODULES if (lines := len(path.read_text().splitlines())) > 280}
    assert not long, "split it, or say in the change why it is one idea"


def test_functions_fit_a_screen():
    long = [
        f"{path.name}:{node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno > 75
    ]
    assert not long


def test_nothing_is_left_for_later():
    words = re.compile("TO" + "DO|FIX" + "ME")
    assert not [path.name for path in MODULES if words.search(path.read_text())]


def test_every_stage_is_a_record_with_both_halves_and_every_method_has_a_function():
    stages = {kind.model_fields["kind"].annotation.__args__[0] for kind in Stage.__origin__.__args__}
    assert stages == set(StageKind.__args__) == set(EXCHANGES)
    kinds = {"spectral", "embedding", "gan", "flow", "appearance", "codec", "stylegan2", "diffusion"}
    assert set(GENERATORS) == kinds
    assert stages - set(GENERATORS) == {"choice", "features"}
    for record in EXCHANGES.values():
        assert callable(import_named(record.trainer))
        assert callable(import_named(record.strategy))
    assert set(ANONYMISERS) == set(Method.__args__)


@pytest.mark.parametrize("name", ["demo.yaml", "chest-xray.yaml"])
def test_shipped_plans_cost_what_they_say_and_pass_the_shipped_policy(name):
    plan = shipped(name)
    policy = load_yaml(ROOT / "configs" / "policy.yaml", Policy)
    cost = forecast(plan, plan.privacy.delta)
    assert max(cost.epsilon_train, cost.epsilon_holdout) <= min(plan.privacy.epsilon, policy.budget.epsilon)
    for site in plan.sites:
        check_policy(plan, policy.model_copy(update={"site": site}))
    assert policy.noise == "secure"
    # as the documents say: noise from a budget, clip radii that sites measure, and no trained model without the choice
    assert plan.budget is not None
    assert plan.stages[0].radii == "charged"
    assert plan.release[0].model == ("best" if plan.chooses else plan.base)


def test_the_demo_releases_a_formal_a_k_anonymous_and_a_local_set():
    items = shipped("demo.yaml").release
    assert any(isinstance(item, Sampling) for item in items)
    assert any(isinstance(item, Grouped) for item in items)
    assert any(isinstance(item, Latent) for item in items)


def test_a_site_takes_the_shipped_plan_as_the_coordinator_resolved_it(tmp_path):
    plan = shipped("demo.yaml")
    with pytest.raises(ConfigError, match="not resolved"):
        load_resolved_plan(ROOT / "configs" / "demo.yaml")
    (tmp_path / "plan.yaml").write_text(plan_text(plan))
    assert load_resolved_plan(tmp_path / "plan.yaml").digest == plan.digest
    for side in ("client/compose-site.sh", "server/compose-coordinator.sh"):
        assert "plan.yaml" in (ROOT / side).read_text()
    assert "configs/demo.yaml" not in (ROOT / "client" / "compose-site.sh").read_text()


def test_the_compose_file_runs_the_shipped_plan_and_publishes_no_port():
    text = (ROOT / "docker-compose.yml").read_text()
    plan = shipped("demo.yaml")
    assert f"SITES: {' '.join(plan.sites)}" in text
    assert "ports:" not in text
    assert "internal: true" in text


def test_the_documents_name_real_commands():
    from typer.main import get_command

    from sfumato_client.cli.main import app as site_app
    from sfumato_server.cli.main import app as coordinator_app

    pages = {path: path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
    command = r"^(?:    )?(sfumato(?:-site)?) +([a-z-]+)(?: +([a-z-]+))?"
    found = {path: re.findall(command, text, flags=re.MULTILINE) for path, text in pages.items()}
    assert len(found[ROOT / "README.md"]) > 8
    assert {"coordinator.md", "hospital.md", "researcher.md"} <= {
        path.name for path, commands in found.items() if commands
    }
    for program, first, second in (words for commands in found.values() for words in commands):
        command = get_command(site_app if program == "sfumato-site" else coordinator_app).commands[first]
        if hasattr(command, "commands"):
            assert second in command.commands
