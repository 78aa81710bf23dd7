"""`sfumato-site tabular`, from schema to output folder: refused whole, or charged first and then carried out.

The order is the guarantee: schema, policy and header -> the ledger, on disk -> rows -> noise -> what ran against what
was charged -> output. Of the CSV only the header is read before the charge.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sfumato_client.dataset import require_patients
from sfumato_client.ledger import Ledger, Terms
from sfumato_client.site.home import SiteHome
from sfumato_client.site.noise import site_noise
from sfumato_client.site.withdrawn import read_withdrawn
from sfumato_client.tabular.anonymise import anonymise, prior_cells
from sfumato_client.tabular.certificate import certificate
from sfumato_client.tabular.coding import MISSING, Cells, text_of
from sfumato_client.tabular.copula import copula_cells
from sfumato_client.tabular.histograms import Bins, refit, release_histograms
from sfumato_client.tabular.schema import TableSchema
from sfumato_client.tabular.shares import Float64
from sfumato_client.tabular.table import Parts, Table, check_header, read_table, split, train_members, without
from sfumato_client.tabular.terms import digest_of, resolve_terms, study_of, table_events
from sfumato_client.tabular.train import train_flow
from sfumato_client.tabular.tree import tree_cells
from sfumato_common.crypto.identity import SiteIdentity, load_identity
from sfumato_common.errors import ConfigError, DataError, LedgerError, PolicyRefusal
from sfumato_common.files import sync_folder, write_atomic
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.sealed import Sealed
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.study.policy import Budget, Policy
from sfumato_common.tabular.certificate import CERTIFICATE, SCHEMA, SIGNATURE, TABLE, TableCertificate


@dataclass(frozen=True)
class Outcome:
    """What a run tells its steward: the certificate, and where the local report is, if one was asked for."""

    certificate: TableCertificate
    report: Path | None


def check_rows(home: SiteHome, source: Path, schema: TableSchema) -> None:
    """Hold every row against the schema, and the patients against policy and ledger; nothing is charged or computed.

    Raises DataError as `read_table` does, and for a patient who was charged in the other cohort.
    """
    check_header(source, schema)
    table = without(read_table(source, schema), home.split_key(), read_withdrawn(home))
    require_patients(len(set(table.patients)), home.policy())
    if schema.identity_is_known:
        with home.open_ledger() as ledger:
            ledger.check_members(train_members(table, home.split_key()))


def run_tabular(home: SiteHome, source: Path, schema: TableSchema, output: Path, report: bool) -> Outcome:
    """Anonymise `source` into the new folder `output`.

    Raises ConfigError, PolicyRefusal, BudgetExceeded, DataError for the header, or LedgerError for a schema that was
    charged before, all with nothing touched; DataError for a wrong row, which is charged all the same.
    """
    schema, policy, split_key = resolve_terms(schema), home.policy(), home.split_key()
    identity = load_identity(home.keys)
    check_policy(schema, policy)
    check_header(source, schema)
    noise = site_noise(policy, digest_of(schema), "tabular")
    with _folder(output) as staging, home.open_ledger() as ledger:
        _check_new(schema, ledger)
        with ledger.charged(_terms(schema), table_events(schema), noise) as charge:
            streams = Streams.of(noise)
            table = without(_read_charged_table(source, schema), split_key, read_withdrawn(home))
            if schema.identity_is_known:
                ledger.bind(train_members(table, split_key))
            parts = split(table, split_key, streams.secret)
            require_patients(parts.patients, policy)
            if not len(parts.train):
                raise DataError("the table has no patient to train on; nothing was computed")
            made = _make_cells(schema, parts, streams, charge.recorder)
            sealed = charge.seal(_csv(schema, made))
            stated = certificate(schema, policy.site, policy.noise, sealed.digest)
            _write(staging, schema, sealed, stated, identity)
            staging.rename(output)
            sync_folder(output.parent)
    return Outcome(stated, _report(home, schema, table, parts, made) if report else None)


def check_policy(schema: TableSchema, policy: Policy) -> None:
    """Raise PolicyRefusal for what this site's policy does not allow."""
    if schema.method not in policy.release.allowed_methods:
        raise PolicyRefusal(
            f"the table is to be released by '{schema.method}', which is not in this site's release.allowed_methods"
        )
    if schema.rows > policy.release.largest_set:
        raise PolicyRefusal(f"'rows' is larger than this site's release.largest_set = {policy.release.largest_set}")
    if policy.budget.delta * float(schema.training.nominal_patients or 0) >= 1.0:
        raise PolicyRefusal(
            "this site's budget.delta is not below 1 / nominal_patients of the table; state a smaller one"
        )
    if schema.privacy.delta > policy.budget.delta:
        raise PolicyRefusal(f"privacy.delta is larger than this site's budget.delta = {policy.budget.delta:g}")


def _check_new(schema: TableSchema, ledger: Ledger) -> None:
    if ledger.events("train", digest_of(schema)):
        raise LedgerError(
            "a run under this very schema was charged before: running it again would draw fresh noise and cost again. "
            "Its output is the release; to pay for another one, give 'table' another name"
        )


def _terms(schema: TableSchema) -> Terms:
    limit = Budget(epsilon=schema.privacy.epsilon, delta=schema.privacy.delta)
    events = tuple(table_events(schema))
    everybody = not schema.identity_is_known
    return Terms(study_of(schema), digest_of(schema), "table", 1, "train", limit, events, everybody)


def _read_charged_table(source: Path, schema: TableSchema) -> Table:
    try:
        return read_table(source, schema)
    except DataError as error:
        raise DataError(
            f"{error}. This run was charged all the same; correct the table, hold it against the schema with --check, "
            "and give 'table' another name"
        ) from None


def _make_cells(schema: TableSchema, parts: Parts, streams: Streams, recorder: NoiseRecorder) -> Cells:
    """The output's cells [rows, C] of all columns."""
    if schema.method == "marginals":
        return tree_cells(schema, parts.train, streams.published, recorder)
    if schema.method == "copula":
        return copula_cells(schema, parts.train, streams.published, recorder)
    features, condition = _split_condition(schema, parts.train)
    flow = train_flow(schema, features, condition, streams.secret, recorder)
    noise, columns = schema.histograms.noise_multiplier, schema.measured
    assert noise is not None, "a resolved schema has its noise"
    histograms = release_histograms(columns, parts.train if columns is schema.columns else features, noise, recorder)
    shares: Float64 | None = None
    if schema.condition in columns:
        column = columns[schema.condition]
        shares = Bins(column).level_shares(histograms.shares(schema.condition, column))
    made, under = anonymise(schema, flow, features, condition, streams, recorder, shares)
    drawn = prior_cells(schema, flow, under, streams.published)
    refitted: dict[str, Float64] = {}
    for (name, column), own in zip(schema.features.items(), drawn.T, strict=True):
        refitted[name] = histograms.shares(name, column, Bins(column).counts(own) / len(own))
    return _join_condition(schema, refit(schema.features, made, refitted, streams.published), under)


def _split_condition(schema: TableSchema, cells: Cells) -> tuple[Cells, Tensor]:
    """All columns [N, C] -> those of the flow, and conditions [N]: an empty one is the last level."""
    names = list(schema.columns)
    if schema.condition is None:
        return cells, torch.zeros(len(cells), dtype=torch.int64)
    own = cells[:, names.index(schema.condition)]
    last = schema.columns[schema.condition].cells
    features = np.delete(cells, names.index(schema.condition), axis=1)
    return features, torch.from_numpy(np.where(own == MISSING, last, own))


def _join_condition(schema: TableSchema, features: Cells, condition: Tensor) -> Cells:
    """Inverse of `_parted`."""
    if schema.condition is None:
        return features
    last = schema.columns[schema.condition].cells
    own = np.where(condition.numpy() == last, MISSING, condition.numpy())
    return np.insert(features, list(schema.columns).index(schema.condition), own, axis=1)


def _csv(schema: TableSchema, cells: Cells) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(schema.columns)
    columns = list(schema.columns.values())
    writer.writerows([text_of(column, int(cell)) for column, cell in zip(columns, row, strict=True)] for row in cells)
    return text.getvalue().encode()


def _write(
    folder: Path, schema: TableSchema, sealed: Sealed[bytes], stated: TableCertificate, identity: SiteIdentity
) -> None:
    sealed.check()
    write_atomic(folder / TABLE, sealed.result)
    write_atomic(folder / CERTIFICATE, stated.encode())
    write_atomic(folder / SIGNATURE, identity.sign_table(stated.encode()))
    write_atomic(folder / SCHEMA, json.dumps(schema.model_dump(mode="json"), indent=2) + "\n")


@contextmanager
def _folder(output: Path) -> Iterator[Path]:
    """A folder beside `output`, to be renamed to it when it is whole; gone otherwise. Raises ConfigError."""
    if output.exists():
        raise ConfigError(f"'{output.name}' is there already; name a new output folder")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    except OSError as error:
        raise ConfigError(f"'{output.name}' cannot be made ({type(error).__name__}); check the path") from None
    try:
        staging.chmod(0o755)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _report(home: SiteHome, schema: TableSchema, table: Table, parts: Parts, made: Cells) -> Path:
    from sfumato_client.tabular.report import local_report

    path = home.steward_folder / f"table-{schema.table}-{digest_of(schema)[:12]}.json"
    value = local_report(schema, made, parts.train, parts.holdout) | {"clipped_values": table.clipped}
    write_atomic(path, json.dumps(value, indent=2) + "\n", mode=0o600)
    return path
