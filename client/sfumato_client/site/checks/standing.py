"""What the site is: its policy, its keys and certificates, its ledger."""

from __future__ import annotations

from collections.abc import Iterator

from sfumato_client.ledger.behind import require_current
from sfumato_client.ledger.head import has_begun
from sfumato_client.site.checks.finding import Finding, Subject
from sfumato_client.site.given import gate_encoder, require_text_reader
from sfumato_common.accounting.accountant import epsilon_text
from sfumato_common.crypto import enrolment
from sfumato_common.crypto.certificates import check_site_certificate
from sfumato_common.crypto.enrolment import load_grant
from sfumato_common.crypto.identity import load_identity
from sfumato_common.errors import ConfigError


def policy(subject: Subject) -> Iterator[Finding]:
    """That the policy can be read, and what in it is not for patients' images."""
    kept = subject.home.own_policy()
    budget = kept.budget
    yield Finding(
        "good",
        f"site '{kept.site}': a patient may pay epsilon {budget.epsilon:g} at delta {budget.delta:g}, add/remove",
    )
    if kept.noise == "test":
        yield Finding("wrong", "the policy says 'noise: test', which protects nobody: take it out")
    if kept.nonprivate_studies:
        named = ", ".join(kept.nonprivate_studies)
        yield Finding("note", f"the policy lets studies train here without differential privacy: {named}")
    if kept.release.gate.encoder is not None:
        gate_encoder(subject.home, kept.release.gate.encoder, kept)
        yield Finding("good", "the gate's encoder is there, and is the one that the policy pins")
    require_text_reader(kept.release.gate)


def keys(subject: Subject) -> Iterator[Finding]:
    """That the site's keys are whole, closed to others, and the policy's own."""
    identity, named = load_identity(subject.home.identity), subject.home.own_policy().site
    subject.home.split_key()
    if subject.home.store.exists():
        subject.home.store_key()
    if identity.site != named:
        yield Finding(
            "wrong", f"the keys are of site '{identity.site}', the policy of '{named}': take the right policy"
        )
    else:
        yield Finding("good", "the site's keys are whole, and closed to others")
    if (known := load_identity(subject.home.keys).site) != named:
        yield Finding("good", f"studies know this site by '{known}', and see other keys than its own")


def certificate(subject: Subject) -> Iterator[Finding]:
    """That a coordinator's grant is there, fits the keys, and goes on for a while."""
    identity = load_identity(subject.home.keys)
    try:
        grant = load_grant(subject.home.grant)
        address = subject.home.coordinator_address()
    except ConfigError:
        yield Finding(
            "note",
            "not enrolled: give 'enrolment-request.json' to the coordinator, then 'sfumato-site join' its grant",
        )
        return
    check_site_certificate(grant.certificate, grant.authority, identity.site, identity.tls_key.public_key())
    soon = enrolment.require_current(subject.home.grant)
    yield Finding("note", soon) if soon else Finding("good", f"enrolled with the coordinator at {address}")


def ledger(subject: Subject) -> Iterator[Finding]:
    """That the ledger's chain holds, and what it holds; a look begins none."""
    home = subject.home
    require_current(home.ledger_file)  # nor is one settled by it
    if not has_begun(home.ledger_file):
        yield Finding("good", "the ledger is empty: no patient has paid anything")
        return
    with home.open_ledger() as book:
        book.verify()
        spent = max(book.spent_epsilon("train"), book.spent_epsilon("holdout"))
        open_charges, budget = len(book.unsettled_charges()), book.budget
    yield Finding("good", f"the ledger's chain holds; a patient has paid epsilon {epsilon_text(spent)}")
    if spent >= budget.epsilon:
        yield Finding("wrong", "the budget is used up: no further study fits; only another policy gives more")
    if open_charges:
        yield Finding("note", f"{open_charges} charges are not settled: work in progress, or a crash; they count")
