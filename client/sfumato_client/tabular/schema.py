"""The schema of a table: every number in it is public and stated by the steward, none is estimated from the rows.

A bound or a list of levels read off the data would be a release without noise; so a value beyond its bounds is clipped,
and a level that the schema does not name is an error.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from sfumato_common.generators.settings import Positive
from sfumato_common.strict import Strict
from sfumato_common.study.plan import Name
from sfumato_common.study.words import TableMethod

MOST_CELLS = 1_000_000
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Level = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class NumericColumn(Strict):
    """Numbers between public bounds, to `digits` decimals; `missing` allows empty cells."""

    kind: Literal["numeric"]
    low: Finite
    high: Finite
    digits: Annotated[int, Field(ge=0, le=6)] = 2
    missing: bool = False

    @property
    def cells(self) -> int:
        """How many values the column can take."""
        return round((self.high - self.low) * 10.0**self.digits) + 1

    @model_validator(mode="after")
    def _grid(self) -> NumericColumn:
        if not self.low < self.high:
            raise ValueError("'low' must be smaller than 'high'")
        if round(self.low, self.digits) != self.low or round(self.high, self.digits) != self.high:
            raise ValueError("'low' and 'high' must have no more decimals than 'digits'")
        if not 2 <= self.cells <= MOST_CELLS:
            raise ValueError(f"a column takes 2 to {MOST_CELLS} values between its bounds; change 'digits'")
        return self


class _Levels(Strict):
    levels: Annotated[list[Level], Field(min_length=2, max_length=200)]
    missing: bool = False

    @property
    def cells(self) -> int:
        """How many levels the column names."""
        return len(self.levels)

    @field_validator("levels")
    @classmethod
    def _distinct(cls, levels: list[str]) -> list[str]:
        if len(set(levels)) < len(levels):
            raise ValueError("a level is named twice; keep one")
        return levels


class OrdinalColumn(_Levels):
    """Levels in their order, lowest first."""

    kind: Literal["ordinal"]


class CategoricalColumn(_Levels):
    """Levels without an order."""

    kind: Literal["categorical"]


AnyColumn = NumericColumn | OrdinalColumn | CategoricalColumn
Column = Annotated[AnyColumn, Field(discriminator="kind")]


class TablePrivacy(Strict):
    """The most that the whole run may cost a patient; a schema that costs more is refused."""

    epsilon: Positive
    delta: Annotated[float, Field(gt=0, lt=0.01)] = 1e-5


class LatentNoise(Strict):
    """Clip and noise on each record's latents, as in `study.release.Latent`; what is left out is resolved.

    `radius` becomes the norm that latents have where the flow is right; `epsilon`, the total over all coordinates, or
    `noise_multiplier` become a fixed share of `privacy.epsilon`.
    """

    mechanism: Literal["laplace", "gaussian"] = "laplace"
    clip: Literal["l1", "elementwise", "l2"] = "l1"
    radius: Positive | None = None
    epsilon: Positive | None = None
    noise_multiplier: Positive | None = None

    @model_validator(mode="after")
    def _one_mechanism(self) -> LatentNoise:
        unfit = self.noise_multiplier if self.mechanism == "laplace" else self.epsilon
        if unfit is not None:
            raise ValueError("'laplace' takes 'epsilon' and 'gaussian' takes 'noise_multiplier', not the other one's")
        if (self.clip == "l2") != (self.mechanism == "gaussian"):
            raise ValueError("clip 'l2' goes with the gaussian mechanism, 'l1' and 'elementwise' with laplace")
        return self


class TableTraining(Strict):
    """DP-SGD on the flow; `noise_multiplier` is resolved to what the budget leaves, `nominal_patients` to `rows`."""

    steps: Annotated[int, Field(ge=1, le=10_000)] = 100
    sampling_rate: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    noise_multiplier: Positive | None = None
    clipping_norm: Positive = 0.3
    learning_rate: Positive = 0.03
    nominal_patients: Annotated[int, Field(ge=10, le=10_000_000)] | None = None
    couplings: Annotated[int, Field(ge=1, le=16)] = 4
    hidden: Annotated[int, Field(ge=4, le=512)] = 128


class TableHistograms(Strict):
    """Noise on the histograms that every column is refitted to; resolved to a fixed share of `privacy`."""

    noise_multiplier: Positive | None = None


class TableTree(Strict):
    """The two-way marginals of `method: marginals`; what is left out follows from `privacy` and `nominal_patients`.

    Two-ways are of every column with the column `star`, or of a tree that is chosen by scores with `score_noise`.
    `noise_multiplier` is that of the two-ways, and `groups` the most parts of a column in one.
    """

    star: ColumnName | None = None
    score_noise: Positive | None = None
    noise_multiplier: Positive | None = None
    groups: Annotated[int, Field(ge=2, le=200)] | None = None

    @model_validator(mode="after")
    def _one_shape(self) -> TableTree:
        if self.star is not None and self.score_noise is not None:
            raise ValueError("a 'star' is not chosen; leave out 'score_noise' or 'star'")
        return self


class TableCopula(Strict):
    """The correlations of `method: copula`: their noise, and the column whose own are told best, unless said `target`.

    `noise_multiplier` is resolved to what histograms leave of `privacy`.
    """

    star: ColumnName | None = None
    noise_multiplier: Positive | None = None


class TableSchema(Strict):
    """What the steward states about a table and asks for.

    The unit of protection is the patient: `patient` names the column of patient ids (of several rows of a patient one
    is used, drawn at random), or `rows_are_patients` declares that no patient has two rows. `patient_ids: hospital`
    says that the column holds the identifiers which the site's images are stored under, so that a patient of both is
    known; otherwise nobody can tell in which cohort a row's patient is, and both are charged. `leave_out` names columns
    that are dropped. `rows` is the public number of rows of the output. The `condition` is released by randomised
    response at `label_epsilon`, or as it is where it is `condition_public`; under `decode: randomised` it is not
    released at all: rows are decoded under levels drawn at random; under `decode: histogram` they come in the shares of
    its noisy histogram. `release` is the noise on single records' latents, or `none`. `method: marginals` has no flow:
    rows are drawn from a `tree` of noisy two-way marginals; nor has `method: copula`: rows are drawn from noisy
    histograms and correlations. `target` is what the local report predicts.
    """

    table: Name
    rows: Annotated[int, Field(ge=1, le=1_000_000)]
    privacy: TablePrivacy
    columns: Annotated[dict[ColumnName, Column], Field(min_length=2, max_length=500)]
    patient: ColumnName | None = None
    rows_are_patients: bool = False
    patient_ids: Literal["hospital", "other"] = "other"
    leave_out: list[ColumnName] = Field(default_factory=list)
    condition: ColumnName | None = None
    condition_public: bool = False
    label_epsilon: Positive | None = None
    decode: Literal["same", "resampled", "randomised", "histogram"] = "same"
    target: ColumnName | None = None
    method: TableMethod = "cadp"
    release: LatentNoise | Literal["none"] | None = None
    training: TableTraining = TableTraining()
    histograms: TableHistograms = TableHistograms()
    tree: TableTree = TableTree()
    copula: TableCopula = TableCopula()

    @model_validator(mode="after")
    def _whole(self) -> TableSchema:
        if (self.patient is None) != self.rows_are_patients:
            raise ValueError("name the 'patient' column, or declare 'rows_are_patients: true'; one of the two")
        if self.patient is None and self.patient_ids == "hospital":
            raise ValueError("'patient_ids: hospital' is said of a 'patient' column; name it")
        if self.patient in self.columns or set(self.leave_out) & {*self.columns, self.patient}:
            raise ValueError("a column is named in two of 'patient', 'columns' and 'leave_out'")
        if self.target is not None and self.target not in self.columns:
            raise ValueError("'target' names no column of 'columns'")
        for part, star in (("tree", self.tree.star), ("copula", self.copula.star)):
            if star is not None and star not in self.columns:
                raise ValueError(f"'{part}.star' names no column of 'columns'")
        self._check_method()
        self._check_condition()
        if len(self.features) < 2:
            raise ValueError("a table needs two columns beside its condition")
        return self

    def _check_method(self) -> None:
        own = {"marginals": ("tree", self.tree != TableTree()), "copula": ("copula", self.copula != TableCopula())}
        for method, (part, is_stated) in own.items():
            if is_stated and self.method != method:
                raise ValueError(f"'{self.method}' has no '{part}'; leave it out, or state 'method: {method}'")
        if self.method == "cadp":
            return
        stated = {
            "training": self.training.model_copy(update={"nominal_patients": None}) != TableTraining(),
            "release": self.release not in (None, "none"),
            "condition": self.condition is not None,
        }
        if unfit := [name for name, is_stated in stated.items() if is_stated]:
            raise ValueError(
                f"'{self.method}' has no flow, and takes no '{unfit[0]}'; state '{own[self.method][0]}.star'"
            )

    def _check_condition(self) -> None:
        if self.condition is None:
            if self.condition_public or self.label_epsilon is not None or self.decode != "same":
                raise ValueError("without a 'condition' there is nothing to release or decode under")
            return
        if isinstance(self.columns.get(self.condition), NumericColumn | None):
            raise ValueError("'condition' must name a categorical or ordinal column of 'columns'")
        if self.label_epsilon is not None and self.condition_public:
            raise ValueError("a public condition has no price; leave out 'label_epsilon' or 'condition_public'")
        if self.decode in ("randomised", "histogram") and (self.label_epsilon is not None or self.condition_public):
            raise ValueError(f"under 'decode: {self.decode}' no condition is released; it takes no terms")

    @property
    def identity_is_known(self) -> bool:
        """Whether a patient of the table is recognised among those of images."""
        return self.patient_ids == "hospital"

    @property
    def features(self) -> dict[str, AnyColumn]:
        """The columns that pass through the flow: all but the condition."""
        return {name: column for name, column in self.columns.items() if name != self.condition}

    @property
    def classes(self) -> int:
        """K, the levels of the condition, a missing one included; 1 without a condition."""
        if self.condition is None:
            return 1
        column = self.columns[self.condition]
        return column.cells + column.missing

    @property
    def condition_is_released(self) -> bool:
        """Whether rows' own conditions are released, in order: by randomised response, or as they are."""
        return self.condition is not None and self.decode in ("same", "resampled")

    @property
    def latents(self) -> LatentNoise | None:
        """The noise on single records' latents; None where a resolved schema releases none."""
        assert self.release is not None, "a resolved schema says whether it releases latents"
        return None if self.release == "none" else self.release

    @property
    def measured(self) -> dict[str, AnyColumn]:
        """Columns whose histograms are released: all but a condition that is public or never told."""
        whole = self.condition is None or not (self.decode == "randomised" or self.condition_public)
        return self.columns if whole else self.features
