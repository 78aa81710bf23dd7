"""What every anonymisation method is given, and what it gives back; nothing else passes between it and the site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.anonymise.entering import entering_cohort
from sfumato_client.dataset import Cohort
from sfumato_common.encoders.encoder import Encoder
from sfumato_common.errors import PolicyRefusal
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.study.counted import Counted
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import Grouped
from sfumato_common.types import AnyArray, Arrays

Shared = TypeVar("Shared")
# a method on k-SALSA's item may be given to whatever works on groups
Item = TypeVar("Item", bound=Counted, covariant=True)


@dataclass(frozen=True, eq=False)
class Release:
    """What all items of one release at this site start from, and the owner of what they share.

    `models` are released arrays by kind, each with those of the plan's first stage, whose kind is always there.
    `cohort` are the training patients. In `steward_folder` reports and contact sheets may be left; it is None where
    nobody would read them. `grouping_file` keeps the study's grouping of patients (see `groups.py`), which `regroup`
    allows to change. `style_net` are weights that the site was given for k-SALSA (see `style_net.py`).
    """

    plan: Plan
    site: str
    models: Mapping[str, Arrays]
    cohort: Cohort
    steward_folder: Path | None = None
    grouping_file: Path | None = None
    regroup: bool = False
    style_net: Mapping[str, AnyArray] | None = None
    shared: dict[tuple[type, tuple[object, ...]], object] = field(default_factory=dict, repr=False)

    def once(self, kind: type[Shared], settings: tuple[object, ...], make: Callable[[], Shared]) -> Shared:
        """The release's one `kind` of these settings, made when it is first asked for.

        An encoder, an inversion of the cohort, a codec and a style net each cost minutes: items share theirs.
        """
        key = (kind, settings)
        if key not in self.shared:
            self.shared[key] = make()
        found = self.shared[key]
        assert isinstance(found, kind), "what is shared is found by its type"
        return found


@dataclass(frozen=True, eq=False)
class Behind:
    """The training patients behind each image of an item, by number, in the order of its images; they never leave."""

    patients: Sequence[npt.NDArray[np.int64]] = field(repr=False)


def require_private(plan: Plan) -> None:
    """Raise PolicyRefusal for a plan without privacy, for a method that is formal or nothing."""
    if not plan.private:
        raise PolicyRefusal("a plan without privacy has no formal methods")


@dataclass(frozen=True, eq=False)
class Job(Generic[Item]):
    """One item of a release: what it starts from, what is asked, and what it draws from.

    Whatever decides about a record is drawn from `streams.secret`, what an image shows beside it from
    `streams.published`; networks that stay here train with `streams.working`. Formal methods noise through `recorder`
    and nothing else. `encoders` are the given ones that the plan's methods name.
    """

    release: Release
    item: Item
    streams: Streams
    recorder: NoiseRecorder
    encoders: Mapping[str, Encoder] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """The study's plan."""
        return self.release.plan

    @property
    def site(self) -> str:
        """This site's name."""
        return self.release.site

    @property
    def models(self) -> Mapping[str, Arrays]:
        """Released arrays by kind."""
        return self.release.models

    @property
    def cohort(self) -> Cohort:
        """The training patients, with the images that the item's method is given of them."""
        item, whole = self.item, self.release.cohort
        if not isinstance(item, Grouped) or item.views == "mean":
            return whole
        return self.release.once(Cohort, (item.views,), lambda: entering_cohort(whole, item))

    def keep_behind(self, patients: Sequence[npt.NDArray[np.int64]]) -> None:
        """Note who is behind each image of the item, for the site's own gate alone."""
        self.release.once(Behind, (self.item.model_dump_json(),), lambda: Behind(patients))

    @property
    def behind(self) -> Behind | None:
        """Who is behind each image; None where the item's method has not said, as one that reads no record."""
        found = self.release.shared.get((Behind, (self.item.model_dump_json(),)))
        return found if isinstance(found, Behind) else None

    @property
    def steward_folder(self) -> Path | None:
        """Where reports for the steward may be left."""
        return self.release.steward_folder


# raises DataError when the cohort cannot give what the plan asks for under the method's promise
Anonymiser = Callable[[Job[Any]], CandidateSet]
