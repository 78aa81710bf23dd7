"""What a schema's run costs, and the numbers that a schema may leave to its budget.

Rows are taken to be patients of this hospital, the same people whose images its studies use: nothing here could show
that they are others. So a table is charged to the site's one ledger, and adds to all else: to training patients where
its patients are known by the identifiers of the images, and to both cohorts where they are not.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Literal

from sfumato_client.tabular.coding import Coder
from sfumato_client.tabular.schema import LatentNoise, TableHistograms, TableSchema
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.calibration import gaussian_mu, least_noise, round_up, sampled_guess
from sfumato_common.accounting.events import (
    Declared,
    Event,
    GaussianRelease,
    RandomisedResponse,
    SampledGaussian,
    local_event,
)
from sfumato_common.accounting.pld import LARGEST_PURE_EPSILON
from sfumato_common.errors import ConfigError
from sfumato_common.files import canonical_json
from sfumato_common.generators.settings import DpSgdStage

# parts of privacy.epsilon; training has what is left
RELEASE_SHARE, LABEL_SHARE = 0.2, 0.1
# up to it a latent with a fifth of it says next to nothing of its record: that fifth is better spent on training
LARGEST_WITHOUT_LATENTS = 10.0
# parts of mu^2, the squared parameter of Gaussian mechanisms, of the whole budget
HISTOGRAM_SHARE, HISTOGRAM_SHARE_BESIDE_LATENTS = 0.35, 0.1
# histograms, scores and two-ways of a chosen tree; of a star the first and the last
_TREE_SHARES, _STAR_SHARES = (0.4, 0.15, 0.45), (0.4, 0.0, 0.6)
# histograms and correlations of a copula
_COPULA_SHARES = (0.5, 0.5)
_FEWEST_GROUPS, _MOST_GROUPS = 2, 16
_LARGEST_LABEL_EPSILON = 10.0
_LEAST_NOISE = 0.3
_CLOSE = 0.01  # how far below the budget, in parts of it, resolved noise may stay


def resolve_terms(schema: TableSchema) -> TableSchema:
    """`schema` with every number written out. Takes seconds where the budget sets the training's noise.

    Raises ConfigError when its run costs more than its `privacy` says; no data is looked at.
    """
    total = schema.privacy.epsilon
    training = schema.training
    if training.nominal_patients is None:
        training = training.model_copy(update={"nominal_patients": max(10, schema.rows)})
    if schema.privacy.delta * float(training.nominal_patients or 0) >= 1.0:
        raise ConfigError(
            f"table '{schema.table}': privacy.delta is not below 1 / {training.nominal_patients}, its nominal "
            "patients: it would allow to publish a patient's record whole; state a smaller one"
        )
    schema = schema.model_copy(update={"training": training})
    resolved = {"cadp": _resolve_cadp, "marginals": resolve_tree, "copula": _resolve_copula}
    found = resolved[schema.method](schema)
    spent = cost(found)
    if not spent <= total:  # written so that a NaN is refused
        raise ConfigError(
            f"table '{schema.table}' costs epsilon {spent:.3f} at delta {schema.privacy.delta:g}, more than "
            f"privacy.epsilon = {total:g}; state more noise, fewer steps, or a larger epsilon"
        )
    return found


def _resolve_cadp(schema: TableSchema) -> TableSchema:
    total, changes = schema.privacy.epsilon, dict[str, Any]()
    changes["release"] = _release(schema)
    if schema.histograms.noise_multiplier is None:
        mu = gaussian_mu(total, schema.privacy.delta)
        share = HISTOGRAM_SHARE if changes["release"] == "none" else HISTOGRAM_SHARE_BESIDE_LATENTS
        changes["histograms"] = TableHistograms(noise_multiplier=_share_noise(mu, share))
    if schema.condition_is_released and not schema.condition_public and schema.label_epsilon is None:
        if changes["release"] == "none" and schema.decode == "same":
            # a row has no record whose answer it could keep
            changes["decode"] = "histogram"
        else:
            changes["label_epsilon"] = min(LABEL_SHARE * total, _LARGEST_LABEL_EPSILON)
    found = schema.model_copy(update=changes)
    return _with_noise(found, _least_noise(found)) if schema.training.noise_multiplier is None else found


def digest_of(schema: TableSchema) -> str:
    """The plan hash under which a resolved schema's run is charged: sha256 of its canonical JSON."""
    return hashlib.sha256(canonical_json(schema.model_dump(mode="json"))).hexdigest()


def study_of(schema: TableSchema) -> str:
    """The name under which a schema's run stands in the ledger."""
    return f"table-{schema.table}"


def table_events(schema: TableSchema) -> list[Event]:
    """What a resolved schema's run charges training patients, in order: training, histograms, release, condition.

    By marginals: histograms, the scores of a chosen tree, and two-ways (`tree.py` has the proof). By a copula:
    histograms and correlations (`copula.py`).

    Latents fill `rows` places as `LocalLaplace` says: one vector a patient at most, patients drawn at random, and the
    zero vector where there is no patient. The condition's answers are as many.
    """
    training, tree = schema.training, schema.tree
    if schema.method != "cadp":
        own = (
            (tree.score_noise, tree.noise_multiplier)
            if schema.method == "marginals"
            else (schema.copula.noise_multiplier,)
        )
        noises = (schema.histograms.noise_multiplier, *own)
        return [GaussianRelease(noise) for noise in noises if noise is not None]
    assert training.noise_multiplier is not None, "a resolved schema has its noise"
    return [
        SampledGaussian(training.noise_multiplier, training.sampling_rate, training.steps),
        *_release_events(schema),
    ]


def _release_events(schema: TableSchema) -> list[Event]:
    release, histograms = schema.latents, schema.histograms
    assert histograms.noise_multiplier is not None, "a resolved schema has its noise"
    events: list[Event] = [GaussianRelease(histograms.noise_multiplier)]
    if release is not None:
        events.append(local_event(release.epsilon, release.noise_multiplier))
    if schema.label_epsilon is not None:
        events.append(RandomisedResponse(schema.classes, schema.label_epsilon))
    elif schema.condition_public:
        what = f"table {schema.table}: levels of column '{schema.condition}', taken as public"
        events.append(Declared(what, schema.rows * max(1, math.ceil(math.log2(schema.classes)))))
    return events


def cost(schema: TableSchema) -> float:
    """Add/remove epsilon of a resolved schema's run at its own delta."""
    return epsilon(table_events(schema), schema.privacy.delta)


def dp_stage(schema: TableSchema) -> DpSgdStage:
    """A resolved schema's training in the words of the house's DP-SGD engines: one round of local steps."""
    training = schema.training
    assert training.noise_multiplier is not None, "a resolved schema has its noise"
    return DpSgdStage(
        rounds=1,
        local_steps=training.steps,
        sampling_rate=training.sampling_rate,
        clipping_norm=training.clipping_norm,
        noise_multiplier=training.noise_multiplier,
        learning_rate=training.learning_rate,
    )


def _release(schema: TableSchema) -> LatentNoise | Literal["none"]:
    release, width = schema.release, Coder(schema.features).width
    if release is None:
        release = "none" if schema.privacy.epsilon <= LARGEST_WITHOUT_LATENTS else LatentNoise()
    if release == "none":
        return release
    changes: dict[str, float] = {}
    if release.radius is None:
        # mean L1 norm, root mean square norm, and where two in a thousand standard normals are cut
        changes["radius"] = {"l1": width * math.sqrt(2.0 / math.pi), "l2": math.sqrt(width), "elementwise": 3.0}[
            release.clip
        ]
    share = min(RELEASE_SHARE * schema.privacy.epsilon, LARGEST_PURE_EPSILON)
    if release.mechanism == "laplace" and release.epsilon is None:
        changes["epsilon"] = share
    if release.mechanism == "gaussian" and release.noise_multiplier is None:
        changes["noise_multiplier"] = 1.0 / gaussian_mu(share, schema.privacy.delta)
    return release.model_copy(update=changes)


def resolve_tree(schema: TableSchema) -> TableSchema:
    """`schema` of `method: marginals` with the noise of each of its Gaussian mechanisms, and its groups."""
    tree, mu = schema.tree, gaussian_mu(schema.privacy.epsilon, schema.privacy.delta)
    histograms, scores, two_ways = (
        _share_noise(mu, share) if share else None
        for share in (_STAR_SHARES if tree.star is not None else _TREE_SHARES)
    )
    noise = tree.noise_multiplier or two_ways
    assert noise is not None, "two-ways have a share"
    # groups of one table's counts are to stand out from its noise, were patients spread evenly
    spread = float(schema.training.nominal_patients or 0) / (2.0 * noise * math.sqrt(len(schema.columns) - 1))
    groups = min(max(round(math.sqrt(spread)), _FEWEST_GROUPS), _MOST_GROUPS)
    changes = {"noise_multiplier": noise, "score_noise": tree.score_noise or scores, "groups": tree.groups or groups}
    return schema.model_copy(
        update={
            "release": "none",
            "histograms": TableHistograms(noise_multiplier=schema.histograms.noise_multiplier or histograms),
            "tree": tree.model_copy(update=changes),
        }
    )


def _resolve_copula(schema: TableSchema) -> TableSchema:
    """`schema` of `method: copula` with the noise of both of its Gaussian mechanisms, and its star."""
    mu, own = gaussian_mu(schema.privacy.epsilon, schema.privacy.delta), schema.copula
    histograms, correlations = (_share_noise(mu, share) for share in _COPULA_SHARES)
    changes = {"noise_multiplier": own.noise_multiplier or correlations, "star": own.star or schema.target}
    return schema.model_copy(
        update={
            "release": "none",
            "histograms": TableHistograms(noise_multiplier=schema.histograms.noise_multiplier or histograms),
            "copula": own.model_copy(update=changes),
        }
    )


def _share_noise(mu: float, share: float) -> float:
    """Noise of a Gaussian mechanism that takes `share` of mu^2; no less than has a price worth computing."""
    return max(round_up(1.0 / (mu * math.sqrt(share))), _LEAST_NOISE)


def _with_noise(schema: TableSchema, noise: float) -> TableSchema:
    return schema.model_copy(update={"training": schema.training.model_copy(update={"noise_multiplier": noise})})


def _least_noise(schema: TableSchema) -> float:
    """The least training noise, to `_CLOSE` in cost, at which the run costs no more than its budget.

    Raises ConfigError when no noise suffices.
    """
    total, training = schema.privacy.epsilon, schema.training
    rest = epsilon(_release_events(schema), schema.privacy.delta)
    if not rest < total * (1.0 - _CLOSE):
        raise ConfigError(
            f"table '{schema.table}': privacy.epsilon = {total:g} leaves nothing for training beside the release; "
            "state a larger one, or smaller epsilons of the release and the condition"
        )
    # what is left as a Gaussian release, and that by the central limit theorem
    guess = sampled_guess(gaussian_mu(total - rest, schema.privacy.delta), training.sampling_rate, training.steps)
    found = least_noise(lambda noise: cost(_with_noise(schema, noise)), total, guess, _CLOSE, _LEAST_NOISE)
    return round_up(found)
