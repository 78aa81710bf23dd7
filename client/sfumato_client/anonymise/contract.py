"""What every anonymisation method is given, and what it gives back; nothing else passes between it and the site."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.dataset import Cohort
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import AnyItem
from sfumato_common.types import AnyArray, Arrays


@dataclass(frozen=True, eq=False)
class Job:
    """One item of the plan's release at this site.

    `models` are released arrays by kind, each with the spectral arrays; kind 'spectral' is always there. `cohort` are
    the training patients. Whatever decides about a record is drawn from `streams.secret`, what an image shows beside it
    from `streams.published`; networks that stay here train with `streams.working`. Formal methods noise through
    `recorder` and nothing else. In `steward_folder` reports and contact
    sheets may be left; it is None where nobody would read them. `grouping_file` keeps the study's grouping of patients
    (see `groups.py`), which `regroup` allows to change. `style_net` are weights that the site was given for k-SALSA
    (see `style_net.py`). `cache` is what the items of one release share, such as inverted codes.
    """

    plan: Plan
    site: str
    item: AnyItem
    models: Mapping[str, Arrays]
    cohort: Cohort
    streams: Streams
    recorder: NoiseRecorder
    steward_folder: Path | None = None
    grouping_file: Path | None = None
    regroup: bool = False
    style_net: Mapping[str, AnyArray] | None = None
    cache: dict[str, Any] = field(default_factory=dict)


# raises DataError when the cohort cannot give what the plan asks for under the method's promise
Anonymiser = Callable[[Job], CandidateSet]
