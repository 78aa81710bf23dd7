"""Whoever reads who else takes part in a study: each was decided on, since sites may join while a study runs.

At a site the plan holds its own entry of `sites` alone (`joining: later`). What would read the others' entries there,
or take the digest of one party for that of another, is found here before it is found in a study.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLANS = {"plan", "_plan", "study", "offered"}


def reads(folder, attribute, root=ROOT):
    """(file, function, whether it is the site's own entry) of every read of a plan's `attribute` below `folder`."""
    found = set()
    for path in sorted((root / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        owners = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr == attribute and _is_plan(node.value):
                found.add((str(path.relative_to(root / folder)), _function(node, owners), _own_entry(node, owners)))
    return found


def _is_plan(node):
    return (isinstance(node, ast.Name) and node.id in PLANS) or (isinstance(node, ast.Attribute) and node.attr in PLANS)


def _function(node, owners):
    while node in owners and not isinstance(node, ast.FunctionDef):
        node = owners[node]
    return getattr(node, "name", "")


def _own_entry(node, owners):
    """`plan.sites[site]`, `plan.sites.get(site)` or `site in plan.sites`: of one site by name."""
    parent = owners[node]
    by_name = isinstance(parent, ast.Subscript) and parent.value is node
    by_get = isinstance(parent, ast.Attribute) and parent.attr == "get"
    asked = isinstance(parent, ast.Compare) and isinstance(parent.ops[0], ast.In | ast.NotIn)
    return by_name or by_get or asked


def test_a_site_reads_its_own_entry_of_the_plan_and_no_other():
    readers = reads("client", "sites")
    assert len(readers) >= 7
    assert {(file, function) for file, function, own in readers if not own} == set()


def test_what_both_sides_share_reads_all_entries_only_where_sites_cannot_join():
    others = {(file, function) for file, function, own in reads("common", "sites") if not own}
    assert others == {
        # `by_site`, which does not go with 'joining: later'
        ("sfumato_common/generators/components.py", "component_count"),
        ("sfumato_common/generators/components.py", "components_of"),
        ("sfumato_common/generators/components.py", "condition_width"),
        ("sfumato_common/generators/components.py", "condition"),
        ("sfumato_common/generators/components.py", "component_names"),
        ("sfumato_common/generators/components.py", "arrays_for"),
        ("sfumato_common/generators/components.py", "for_all_components"),
        ("sfumato_common/generators/embedding/fit.py", "targets"),
        ("sfumato_common/generators/spectral/fit.py", "fit_components"),
        ("sfumato_common/generators/spectral/fit.py", "_shares_by_site"),
        # where the plan is made: shares are written out, and a choice is judged by who is there
        ("sfumato_common/study/budget.py", "auto_shares"),
        ("sfumato_common/exchanges/choice.py", "without_figure"),
        ("sfumato_common/exchanges/choice.py", "_without_sum"),
        # of the entries that are there: at a site its own
        ("sfumato_common/study/private.py", "check_delta"),
        ("sfumato_common/study/coherence.py", "_check_quorum"),
        ("sfumato_common/study/coherence.py", "_check_item"),
        ("sfumato_common/study/coherence.py", "_check_filled"),
        # `secure_sum`, which does not go with 'joining: later'
        ("sfumato_common/study/summed.py", "check_secure_sum"),
        ("sfumato_common/study/summed.py", "pinned_keys"),
        ("sfumato_common/protocol/summed.py", "sum_terms"),
        # the coordinator's, of histograms that came
        ("sfumato_common/metrics/choice.py", "decide"),
        # of the entries that are there, which of them a later version keeps; the coordinator's list of packages
        ("sfumato_common/study/lineage.py", "check_lineage"),
        ("sfumato_common/study/lineage.py", "package_sites"),
        # names that mark a simulation
        ("sfumato_common/study/simulated.py", "require_simulated"),
    }


def test_the_digest_of_a_plan_is_taken_at_a_site_alone():
    elsewhere = {(file, function) for folder in ("common", "server") for file, function, _ in reads(folder, "digest")}
    assert elsewhere == set(), "say whose: `study_digest` is what all parties share, `digest_at(site)` a site's own"


def test_the_search_finds_what_it_looks_for(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "m.py").write_text(
        "def f(plan, site):\n    return len(plan.sites), plan.sites[site], plan.digest\n"
    )
    assert reads("x", "sites", tmp_path) == {("m.py", "f", False), ("m.py", "f", True)}
    assert reads("x", "digest", tmp_path) == {("m.py", "f", False)}
