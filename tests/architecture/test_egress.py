"""Who may make what leaves: one place for replies, one for noised arrays, one for noise."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def constructions(sides, names):
    """(file, enclosing function, name) of every call of one of `names`, also through a module or an own constructor."""
    found = set()
    for side in sides:
        for path in sorted((ROOT / side).rglob("*.py")):
            if "_pb2" not in path.name:
                found |= _calls(ast.parse(path.read_text()), names, str(path.relative_to(ROOT / side)), "")
    return found


def _calls(node, names, file, function):
    found = set()
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        function = node.name
    if isinstance(node, ast.Call):
        parts = ast.unparse(node.func).split(".")
        if name := next((part for part in parts if part in names), None):
            found.add((file, function, name))
    for child in ast.iter_child_nodes(node):
        found |= _calls(child, names, file, function)
    return found


def imported_as(sides, names):
    """(file, name, other name) of every import that renames one of `names`: a call would then go unseen."""
    return {
        (str(path.relative_to(ROOT)), alias.name, alias.asname)
        for side in sides
        for path in (ROOT / side).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in names and alias.asname
    }


ALL = ("client", "common", "server")


def sources():
    return [path for side in ALL for path in sorted((ROOT / side).rglob("*.py")) if "_pb2" not in path.name]


def test_a_sites_replies_are_made_in_the_guard_alone():
    assert constructions(["client"], {"Reply"}) == {
        ("sfumato_client/egress/guard.py", "plain_reply", "Reply"),
        ("sfumato_client/egress/guard.py", "pending_reply", "Reply"),
        ("sfumato_client/egress/guard.py", "review_reply", "Reply"),
        ("sfumato_client/egress/guard.py", "missing_reply", "Reply"),
        ("sfumato_client/egress/guard.py", "refusal", "Reply"),
    }


def test_a_site_sends_flower_messages_from_its_door_alone():
    assert {file for file, _, _ in constructions(["client"], {"Message"})} == {"sfumato_client/flower/app.py"}
    assert not constructions(["client"], {"MetricRecord", "RecordDict", "ConfigRecord", "ArrayRecord"})


def test_sealed_results_are_made_by_a_recorder_for_a_charge_alone():
    assert constructions(ALL, {"Sealed"}) == {
        ("sfumato_common/mechanisms/recorder.py", "seal_result", "Sealed"),
        # what was sealed before and kept on disk, once the ledger says that it is the very same
        ("sfumato_client/ledger/charged.py", "recall", "Sealed"),
    }
    calls = [(path.name, node.func) for path in sources() for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]  # fmt: skip
    assert [name for name, called in calls if called.attr == "seal_result"] == ["charged.py"]


def test_a_charge_is_sealed_where_its_work_is_done():
    assert {(file, name) for file, _, name in constructions(ALL, {"charged"})} == {
        (file, "charged")
        for file in (
            "sfumato_client/ledger/book.py",
            "sfumato_client/site/handler.py",
            "sfumato_client/site/making.py",
            "sfumato_client/site/reviewing.py",  # what people said: no data is touched under it
            "sfumato_client/tabular/run.py",
            # programs under no plan, whose statement says what they rest on
            "sfumato_client/ledger/runs.py",
            "sfumato/ledger/opacus.py",
            "sfumato/ledger/flower.py",
            "sfumato/ledger/hooks.py",
            "sfumato/ledger/nvflare.py",
        )
    }
    sealing = {(file, function) for file, function, _ in constructions(["client"], {"seal"})}
    assert sealing == {
        ("sfumato_client/site/handler.py", "_once"),
        ("sfumato_client/site/making.py", "_make"),
        ("sfumato_client/audit/verdict.py", "gate"),
        ("sfumato_client/audit/verdict.py", "private_gate"),
        ("sfumato_client/tabular/run.py", "run_tabular"),
        ("sfumato_client/site/making.py", "_approve"),  # the package, from what the gate approved: `release.seal`
        ("sfumato_client/site/reviewing.py", "_close"),
    }


def test_patients_are_bound_to_their_cohort_wherever_a_charge_reads_them():
    opened = {(file, function) for file, function, _ in constructions(["client"], {"open_store"})}
    assert opened == {
        ("sfumato_client/site/home.py", "charged_cohorts"),
        # before a charge: what the steward is told, or is put in its place, and nothing is computed
        ("sfumato_client/site/ingesting.py", "update_source"),
        ("sfumato_client/cli/checking.py", "_with_images"),
        ("sfumato_client/site/checks/images.py", "store"),
        ("sfumato_client/cli/main.py", "accept"),
        ("sfumato_client/site/rehearsing.py", "rehearse_here"),
        ("sfumato_client/flower/node.py", "run_node"),
        # lost charges were of patients nobody remembers: all who may have paid are bound where they are
        ("sfumato_client/site/recovery.py", "recover"),
    }
    assert {file for file, _, _ in constructions(["client"], {"charged_cohorts"})} == {
        "sfumato_client/site/handler.py",
        "sfumato_client/site/making.py",
        # beside candidates, for a steward on this machine, once what the person will say is charged
        "sfumato_client/review/pages.py",
    }
    assert {(file, function) for file, function, _ in constructions(["client"], {"bind"})} == {
        ("sfumato_client/site/home.py", "charged_cohorts"),
        ("sfumato_client/tabular/run.py", "run_tabular"),
        ("sfumato_client/ledger/runs.py", "charged"),
        ("sfumato_client/ledger/runs.py", "stated"),
        ("sfumato_client/site/recovery.py", "recover"),
    }


def test_mechanisms_are_run_by_the_recorder_alone():
    # a part of a sum's noise is seen by the recorder alone, which gives it under its mask
    assert constructions(ALL, {"gaussian_part"}) == {
        ("sfumato_common/mechanisms/recorder.py", "summed_gaussian", "gaussian_part")
    }
    assert {file for file, _, _ in constructions(ALL, {"summed_gaussian"})} == {"sfumato_client/site/summing.py"}
    assert constructions(ALL, {"gaussian_release", "laplace_release"}) == {
        ("sfumato_common/mechanisms/recorder.py", function, mechanism)
        for function, mechanism in (
            ("gaussian", "gaussian_release"),
            ("sampled_gaussian", "gaussian_release"),
            ("local_gaussian", "gaussian_release"),
            ("k_average", "gaussian_release"),
            ("local_laplace", "laplace_release"),
        )
    }


def test_noise_sources_are_made_by_the_policy_and_recorders_by_a_charge():
    assert constructions(ALL, {"SecureNoise", "TestNoise"}) == {
        ("sfumato_client/site/noise.py", "site_noise", "SecureNoise"),
        ("sfumato_client/site/noise.py", "site_noise", "TestNoise"),
        ("sfumato_common/mechanisms/noise.py", "apart", "SecureNoise"),
        # a program under no plan: secure unless its caller gives another source, which its certificate then says
        ("sfumato/ledger/__init__.py", "open_run", "SecureNoise"),
    }
    assert constructions(ALL, {"NoiseRecorder", "BareRecorder"}) == {
        ("sfumato_client/ledger/charged.py", "_recorder", "NoiseRecorder"),
        ("sfumato_client/ledger/charged.py", "_recorder", "BareRecorder"),
    }


def test_streams_are_made_where_a_record_or_an_output_is_drawn():
    assert constructions(ALL, {"SecretStream", "PublishedStream", "working_generator"}) == {
        ("sfumato_common/mechanisms/streams.py", "of", "SecretStream"),
        ("sfumato_common/mechanisms/streams.py", "of", "PublishedStream"),
        ("sfumato_common/mechanisms/streams.py", "of", "working_generator"),
        ("sfumato_client/training/diffusion.py", "train_adapter", "SecretStream"),
        ("sfumato_client/training/flow.py", "train_flow", "SecretStream"),
        ("sfumato_client/training/gan.py", "train_discriminator", "SecretStream"),
        ("sfumato_client/training/gan.py", "train_discriminator", "working_generator"),
        ("sfumato_client/training/stylegan2.py", "_batches", "SecretStream"),
        ("sfumato_client/training/stylegan2.py", "_train_discriminator", "working_generator"),
        ("sfumato_client/training/stylegan2.py", "_train_both", "working_generator"),
        ("sfumato/ledger/opacus.py", "__init__", "SecretStream"),
    }


def test_a_charge_is_what_the_ledger_says():
    assert constructions(ALL, {"Paid"}) == {("sfumato_client/ledger/charged.py", "seal", "Paid")}
    assert constructions(ALL, {"Charge"}) == {("sfumato_client/ledger/charged.py", "charged", "Charge")}
    assert {file for file, _, _ in constructions(ALL, {"noised_reply"})} == {"sfumato_client/site/handler.py"}


def test_the_ledger_is_written_by_charges_alone():
    assert {file for file, _, _ in constructions(ALL, {"reserve", "settle"})} == {"sfumato_client/ledger/charged.py"}


def test_nothing_of_this_is_imported_under_another_name():
    names = {
        "Reply",
        "Message",
        "Sealed",
        "Paid",
        "gaussian_release",
        "laplace_release",
        "SecureNoise",
        "TestNoise",
        "NoiseRecorder",
        "BareRecorder",
        "Charge",
    }
    assert not imported_as(ALL, names)


@pytest.mark.parametrize("text", ["records.Reply(1)", "Reply.from_config({}, {})", "def f():\n    return Reply(1)"])
def test_the_search_finds_what_it_looks_for(text):
    assert {name for _, _, name in _calls(ast.parse(text), {"Reply"}, "x.py", "")} == {"Reply"}
