"""What stands beside a released table: its price first, what that covers, and how much of a record is left in a row.

Every number is public: it comes from the resolved schema and the accountant, never from the rows.
"""

from __future__ import annotations

import math
from dataclasses import replace

from sfumato_client.ledger.certificate import TEST_NOISE, disclosures, mechanism_lines
from sfumato_client.tabular.anonymise import mechanism_of
from sfumato_client.tabular.coding import Coder
from sfumato_client.tabular.schema import TableSchema
from sfumato_client.tabular.terms import digest_of, table_events
from sfumato_common.accounting.accountant import cohort_costs, count_mechanisms
from sfumato_common.study.certificate import Noise, stated_costs, stated_reach
from sfumato_common.tabular.certificate import FORMAT, TableCertificate

COVERS = (
    "Unit: the patient, with all of the patient's rows, of which one at most was used. Covered: the table beside this "
    "file, with all that it was made from: noisy histograms of its columns and, by its method, the flow's training "
    "(cadp), noisy scores and two-way counts of pairs of columns (marginals), or noisy sums of products of pairs of "
    "columns' scores (copula). add_remove: with or without one "
    "patient, its distribution changes by at most (epsilon, delta). replace_one: the same with another patient in the "
    "patient's place. add_remove_rdp is a looser bound by another accountant that cross-checks add_remove. holdout: "
    "what the table costs those who are held out from the site's images, where its patients cannot be matched to "
    "theirs. Not covered: the declared disclosures, each named with its bits, which have no epsilon; the schema, which "
    "the site states to be public; other studies of the site, images among them, which its ledger adds up; and what is "
    "true of most patients, which the table is meant to show."
)
# below these correlations of a released latent with the record's own
_NEXT_TO_NOTHING, _LITTLE = 0.2, 0.6
_HOPELESS = 1.0  # of `training_noise`


def certificate(schema: TableSchema, site: str, noise: Noise, table_sha256: str) -> TableCertificate:
    """What `site` states about a resolved schema's run.

    Raises LedgerError when the accountants contradict each other.
    """
    events = table_events(schema)
    costs = cohort_costs(events, [], schema.privacy.delta)
    if not schema.identity_is_known:
        # whoever is in the table may be in either cohort of the images: both pay, for what ran once
        costs = replace(costs, holdout=costs.train)
    return TableCertificate(
        epsilon=stated_costs(costs),
        delta=schema.privacy.delta,
        unit="patient",
        adjacency="add-remove",
        mechanisms={
            "train": mechanism_lines(count_mechanisms(events)),
            "holdout": mechanism_lines(count_mechanisms([] if schema.identity_is_known else events)),
        },
        declared=disclosures(events),
        noise=noise,
        reach=stated_reach(events, [], schema.privacy.delta),
        covers=(TEST_NOISE if noise == "test" else "") + COVERS,
        format=FORMAT,
        site=site,
        table=schema.table,
        plan_hash=digest_of(schema),
        table_sha256=table_sha256,
        rows=schema.rows,
        method=schema.method,
        guarantee="formal",
        signal=signal_sentence(schema),
    )


def signal_sentence(schema: TableSchema) -> str:
    """What the noise leaves of a record, and of what all records have in common; from public numbers alone."""
    if schema.method == "marginals":
        return tree_sentence(schema)
    if schema.method == "copula":
        return copula_sentence(schema)
    if schema.latents is None:
        return (
            f"No latent of a record was released: a row is a sample of the trained flow. {_training_sentence(schema)}"
        )
    correlation = mechanism_of(schema).correlation
    if correlation < _NEXT_TO_NOTHING:
        verdict = "a row says next to nothing about the record it was made from: it is a sample of the trained flow"
    elif correlation < _LITTLE:
        verdict = "a row says little about the record it was made from, and is mostly a sample of the trained flow"
    else:
        verdict = "a row resembles the record it was made from"
    return (
        f"A released latent value correlates {correlation:.2f} with the record's own: {verdict}. "
        f"{_training_sentence(schema)}"
    )


def tree_sentence(schema: TableSchema) -> str:
    """What a table by marginals shows, and how long the noise of a two-way count is; from public numbers alone."""
    tree, patients = schema.tree, schema.training.nominal_patients
    assert tree.noise_multiplier is not None, "a resolved schema has its noise"
    assert tree.groups is not None and patients is not None, "and its public numbers"
    noise = tree.noise_multiplier * math.sqrt(len(schema.columns) - 1)
    shape = "a tree of pairs chosen by noisy scores" if tree.star is None else f"the pairs with column '{tree.star}'"
    return (
        f"A row is drawn from noisy counts of single columns and of {shape}, and is made from no record. "
        "Of other pairs of columns the table shows only what follows from these. Noise on a two-way count has standard "
        f"deviation {noise:.1f}, where {patients} patients spread evenly would be "
        f"{patients / tree.groups**2:.1f} a count."
    )


def copula_sentence(schema: TableSchema) -> str:
    """What a table by a copula shows, and how large noise on a correlation is; from public numbers alone."""
    noise, patients = schema.copula.noise_multiplier, schema.training.nominal_patients
    assert noise is not None and patients is not None, "a resolved schema has its public numbers"
    # of C coordinates of equal weight; levels without an order have one each
    error = noise * len(schema.columns) * math.sqrt((1.0 - 1.0 / len(schema.columns)) / 2.0) / patients
    return (
        "A row is drawn from noisy counts of single columns and noisy correlations, and is made from no record. "
        f"What goes with what is shown as far as correlations say it. Noise on one has a standard deviation of about "
        f"{error:.2f} with {patients} patients."
    )


def _training_sentence(schema: TableSchema) -> str:
    ratio = training_noise(schema)
    taught = "the flow learns next to nothing" if ratio > _HOPELESS else "the flow can learn them"
    return (
        f"Noise in training is {ratio:.2f} times as long as what {schema.training.nominal_patients} patients could say "
        f"together about the columns' means and spreads: {taught}."
    )


def training_noise(schema: TableSchema) -> float:
    """Length of all steps' noise on the flow's diagonal over that of all steps' gradients, were all of full length.

    sqrt(T P) sigma C against T q N C for T steps, P weights of the diagonal, which the couplings refine, N patients.
    """
    training = schema.training
    assert training.noise_multiplier is not None, "a resolved schema has its noise"
    assert training.nominal_patients is not None, "and its public number of patients"
    weights = 2 * Coder(schema.features).width * (schema.classes + 1)
    pull = training.sampling_rate * training.nominal_patients * math.sqrt(training.steps)
    return training.noise_multiplier * math.sqrt(weights) / pull
