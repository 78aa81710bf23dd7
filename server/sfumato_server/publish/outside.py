"""Figures of a published set that somebody measured afterwards, and the copy of its report that draws them.

`sfumato dataset evaluate` writes them; nobody signs them. The report in the set is signed and stays as it is: the copy
lies elsewhere, says that it is unsigned, and by whom and on what the figures were measured.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sfumato_common.count_text import count_text
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import write_atomic
from sfumato_server.publish.cards.again import facts_of
from sfumato_server.publish.chart import Figure, Outside
from sfumato_server.publish.converted import open_statement
from sfumato_server.publish.manifest import MANIFEST, REPORT
from sfumato_server.publish.report import chart_section

_BEGIN, _END = "<!-- privacy against use -->", "<!-- end of privacy against use -->"
PUBLIC = "declared public"


class _Line(BaseModel):
    """One line of an evaluation, as far as the picture needs it; other keys are the evaluation's own."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    figure: str
    of: str
    subject: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    real: float | None = None
    real_low: float | None = None
    real_high: float | None = None


class _Evaluation(BaseModel):
    """What `sfumato dataset evaluate --out FILE` writes."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    manifest_sha256: str
    by: str = Field(max_length=200)
    index: str = Field(max_length=300)
    data: str
    split: str
    patients: dict[str, int]
    figures: list[_Line]


def read_outside(path: Path, manifest_sha256: str) -> Outside:
    """Figures by method from an evaluation of the set with that manifest.

    Raises ConfigError for a file that is none, is of another set, has no figure `methods`, or is of private images.
    """
    try:
        found = _Evaluation.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, ValidationError, RecursionError):
        raise ConfigError(
            f"'{path.name}' is no evaluation; 'sfumato dataset evaluate DIR --out FILE' writes one"
        ) from None
    if found.manifest_sha256 != manifest_sha256:
        raise ConfigError(f"'{path.name}' was measured on another set; evaluate this one")
    if found.data != PUBLIC:
        raise ConfigError(
            f"'{path.name}' has figures of private images, and a report is made to be shown: evaluate on public ones, "
            "and say so with --public"
        )
    own = [line for line in found.figures if line.figure == "methods" and line.value is not None]
    if not own:
        raise ConfigError(f"'{path.name}' has no figure of a method; evaluate with --figures methods among others")
    first = own[0]
    people = f"{count_text(found.patients.get('tested', 0), 'patient')} of '{found.index}' ({found.split}), {PUBLIC}"
    return Outside(
        by=found.by or "whoever ran the evaluation, who is not named",
        on=people,
        classifier=first.of.partition(":")[0],
        methods={line.subject: Figure(line.value, line.low, line.high) for line in own},
        real=Figure(first.real, first.real_low, first.real_high) if first.real is not None else None,
    )


def write_report(folder: Path, figures: Path, out: Path) -> None:
    """Write a copy of the set's report with figures drawn into its first picture; nothing is verified.

    Raises ConfigError as `read_outside`, VerificationError where the set's own report is not there or is an older one.
    """
    published = open_statement(folder)
    outside = read_outside(figures, hashlib.sha256((published.folder / MANIFEST).read_bytes()).hexdigest())
    page = published.read(REPORT).decode("utf-8", errors="replace")
    before, begun, rest = page.partition(_BEGIN)
    _, ended, after = rest.partition(_END)
    if not begun or not ended:
        raise VerificationError(f"{REPORT} has no place for figures: an earlier version of Sfumato wrote it")
    section = chart_section(facts_of(published), outside)
    write_atomic(out, f"{before}{_BEGIN}{section}{_END}{after}".encode())
