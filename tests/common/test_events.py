"""Events as frozen data: the form in which charges and runs are compared, and what nobody may forget of a new one."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from sfumato_client.ledger.prv import epsilon_prv
from sfumato_common.accounting import accountant, events
from sfumato_common.accounting.accountant import expand_tally
from sfumato_common.accounting.events import (
    Declared,
    Event,
    GaussianRelease,
    KAverageGaussian,
    LocalLaplace,
    Mechanism,
    RandomisedResponse,
    SampledGaussian,
    Unprotected,
    normal_form,
    same_mechanisms,
)
from sfumato_common.accounting.pld import hopeless, loss
from sfumato_common.accounting.rdp import epsilon_rdp
from sfumato_common.errors import LedgerError
from sfumato_server.publish.guarantee import MECHANISMS

ROOT = Path(__file__).resolve().parents[2]
KINDS = {kind.__name__ for kind in get_args(Mechanism)}


@dataclass(frozen=True)
class Novel:
    """A mechanism that somebody adds and then forgets."""

    noise_multiplier: float


def test_one_shot_gaussians_are_one_and_steps_add_up_where_the_first_one_stood():
    step, other = SampledGaussian(1.1, 0.2, 1), SampledGaussian(0.9, 0.2, 1)
    given = [
        GaussianRelease(2 / 0.6),
        step,
        LocalLaplace(3.0),
        GaussianRelease(2 / 0.8),
        other,
        step,
        LocalLaplace(3.0),
    ]
    first, *rest = normal_form(given)
    assert first.noise_multiplier == pytest.approx(2.0, rel=1e-12)
    assert rest == [SampledGaussian(1.1, 0.2, 2), LocalLaplace(3.0), other, LocalLaplace(3.0)]
    assert normal_form([GaussianRelease(0.1), Declared("labels", 3)]) == (GaussianRelease(0.1),)
    assert normal_form([Declared("a set", 1)]) == ()


@pytest.mark.parametrize(
    ("charged", "ran"),
    [
        ([KAverageGaussian(1.0, 5)], []),
        ([], [KAverageGaussian(1.0, 5)]),
        ([Unprotected("gan")], [GaussianRelease(1.0)]),
        ([GaussianRelease(1.0)], [SampledGaussian(1.0, 1.0, 1)]),
        ([GaussianRelease(1.0)], [GaussianRelease(1.001)]),
        ([SampledGaussian(1.0, 0.1, 2)], [SampledGaussian(1.0, 0.1, 3)]),
        ([SampledGaussian(1.0, 0.1, 2)], [SampledGaussian(1.0 + 1e-12, 0.1, 2)]),
        ([LocalLaplace(2.0), RandomisedResponse(2, 1.0)], [RandomisedResponse(2, 1.0), LocalLaplace(2.0)]),
        ([LocalLaplace(2.0)], [LocalLaplace(2.0)] * 2),
    ],
)
def test_what_ran_is_what_was_charged_or_it_is_not(charged, ran):
    assert not same_mechanisms(charged, ran)
    assert same_mechanisms(charged, charged)
    assert same_mechanisms(ran, [*ran, Declared("beside it", 1)])


def test_every_table_knows_every_mechanism():
    assert {kind.__name__ for kind in events._FIELDS} == KINDS | {"Declared"} == {k.__name__ for k in get_args(Event)}
    assert set(MECHANISMS) == KINDS


def test_a_mechanism_that_accountants_do_not_know_is_refused_by_each(monkeypatch):
    novel = Novel(1.0)
    with pytest.raises(TypeError, match="refused, never approximated"):
        accountant.epsilon([novel], 1e-5)
    with pytest.raises(LedgerError, match="unknown mechanism"):
        events.check_event(novel)
    # and where whoever added it remembered the union and the fields, but none of the places that compute
    monkeypatch.setattr(accountant, "Mechanism", Mechanism | Novel)
    monkeypatch.setitem(events._FIELDS, Novel, events._FIELDS[GaussianRelease])
    tally = accountant.count_mechanisms([novel])
    for forgot in (
        lambda: accountant.epsilon([novel], 1e-5),
        lambda: accountant.cost([novel], 1e-5),
        lambda: hopeless(novel),
        lambda: loss(novel, 1, "add-remove"),
        lambda: loss(novel, 3, "replace-one"),
        lambda: epsilon_rdp(tally, 1e-5),
        lambda: epsilon_rdp({GaussianRelease(1.0): 2, **tally}, 1e-5),
        lambda: epsilon_prv(tally, 1e-5, "add-remove"),
        lambda: expand_tally(tally),
    ):
        with pytest.raises(AssertionError, match="unreachable"):
            forgot()


def exhaustive(node):
    last = node.cases[-1]
    return (
        isinstance(last.pattern, ast.MatchAs)
        and last.pattern.pattern is None
        and ast.unparse(last.body[-1]).startswith("assert_never(")
    )


def test_every_match_over_mechanisms_ends_in_assert_never_so_that_mypy_proves_it_whole():
    found = []
    for side in ("common", "client", "server"):
        for path in sorted((ROOT / side).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Match) and KINDS & {
                    ast.unparse(part.cls) for part in ast.walk(node) if isinstance(part, ast.MatchClass)
                }:
                    found.append((path.name, exhaustive(node)))
    assert {name for name, _ in found} == {"pld.py", "rdp.py", "prv.py", "accountant.py"}
    assert all(whole for _, whole in found)
