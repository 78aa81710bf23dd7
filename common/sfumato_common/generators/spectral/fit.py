"""From noisy spectral releases to a Gaussian model a component (all post-processing).

What the noise hides is filled from what more records show: a site's class from its site and its class, those from all
records together, and these from the public power law. Nothing is guessed from data that was not released.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import numpy.typing as npt

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.denoise import (
    Covariance,
    common_covariance,
    estimate_departure,
    pull_towards,
    shrink_means,
)
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.limits import TAILS, bound_covariance, bound_means
from sfumato_common.generators.spectral.moment_layout import Float64, Geometry, MomentLayout
from sfumato_common.generators.spectral.noised_sums import Sums, read_sums
from sfumato_common.generators.spectral.unclip import unclip_variance, unclip_way
from sfumato_common.types import Arrays

# No class is drawn more rarely than this, whatever the noise did to its count.
SMALLEST_SHARE = 0.025


@dataclass(frozen=True)
class Component:
    """One Gaussian of a model: its share, mean [d] and covariance, and the sums that it came of."""

    share: float
    mean: Float64
    covariance: Covariance
    source: Sums

    def unclipped(self) -> Component:
        """The same with what clipping took put back."""
        form, radius, centre = self.covariance.form, self.source.radius, self.source.centre
        total, squares = form.trace, form.square_sum
        times = unclip_variance(total, squares, radius)
        offset = self.mean - centre
        way = unclip_way(float(np.linalg.norm(offset)), times * total, times**2 * squares, radius)
        wider = replace(self.covariance, form=form.scaled(np.full(len(self.mean), math.sqrt(times))))
        return replace(self, mean=centre + way * offset, covariance=wider)

    @property
    def tail(self) -> float:
        """Amplitude above the band: as measured, or else what the outermost frequencies of the band suggest."""
        if self.source.tail is not None:
            return self.source.tail
        return float(np.clip(math.sqrt(max(self.covariance.level, 0.0)), *TAILS))


@dataclass(frozen=True)
class Components:
    """The Gaussian of each of `count` components, made one after another, and once.

    In double precision, with the directions that they are fitted by, those of many sites would take several times the
    memory of the model.
    """

    count: int
    each: Iterator[Component]

    def arrays(self, layout: MomentLayout) -> dict[str, npt.NDArray[np.float32]]:
        """What every model of moments releases, within its public bounds; float32.

        shares [G], mean [G, d], factor [G, d, d] (symmetric root of the covariance, in feature units), signal [G, d, d]
        (projector on the directions that the release showed, the others being filled), and tail [G] (amplitude of the
        frequencies above the band, in units of the power law). The symmetric root is unique, and it is sent rather than
        recomputed, so that every machine starts from the same numbers.
        """
        shares, tail = np.empty(self.count), np.empty(self.count)
        mean = np.empty((self.count, layout.features))
        factor, signal = (np.empty((self.count, *[layout.features] * 2), np.float32) for _ in range(2))
        for place, item in enumerate(self.each):
            shares[place], mean[place], tail[place] = item.share, item.mean, item.tail
            factor[place] = bound_covariance(layout, item.covariance.form).root().matrix
            signal[place] = item.covariance.shown @ item.covariance.shown.T
        mean = bound_means(mean, layout.mean_radius)
        small = {"shares": shares, "mean": mean, "tail": tail}
        return {"factor": factor, "signal": signal} | {name: v.astype(np.float32) for name, v in small.items()}


def fit_release(
    plan: PublicPlan, releases: Mapping[str, Arrays], noise_multiplier: float | None = None
) -> dict[str, npt.NDArray[np.float32]]:
    """Parameters of the spectral model from the noised release of each site that answered, by name.

    Releases have the plan's noise, or that of `noise_multiplier`. See `Components.arrays`.
    """
    layout, stage = Layout.of(plan), plan.spectral
    sigma = stage.noise_multiplier if noise_multiplier is None else noise_multiplier
    return fit_components(plan, layout, sigma, releases, by_site=stage.by_site).arrays(layout)


def fit_components(
    plan: PublicPlan,
    layout: MomentLayout,
    noise_multiplier: float,
    releases: Mapping[str, Arrays],
    *,
    by_site: bool,
    fewest: float = 0.0,
) -> Components:
    """One Gaussian a class, or one a site and class, from the noised release of each site that answered.

    A site whose released count is below `fewest` gets the classes' components, like one that did not answer.
    """
    geometry, first = Geometry.of(layout), dict[str, Sums]()

    def own(site: str) -> Sums:
        return read_sums(layout, releases[site], noise_multiplier)

    def note(site: str) -> Sums:
        found = own(site)
        first[site] = found.first_moments()
        return found

    # one site's second moments at a time
    whole = reduce(lambda a, b: a + b, map(note, sorted(releases)))
    if by_site:
        apart = {site: sums for site, sums in first.items() if sums.counts.sum() >= fewest}
        count, each = len(plan.sites), _site_components(plan, layout, geometry, whole, apart, own)
    else:
        count, each = 1, _class_components(layout, geometry, whole, first)
    return Components(count * len(plan.labels), (item.unclipped() for item in each))


def _class_components(
    layout: MomentLayout, geometry: Geometry, whole: Sums, sites: Mapping[str, Sums]
) -> Iterator[Component]:
    """One component a class over all sites; where sites differ, the covariance is the wider for it."""
    shares = whole.counts / whole.counts.sum()
    scatter = _scatter_between_sites(whole, [sites[site] for site in sorted(sites)])
    within = whole.seconds / whole.counts[:, None, None] + scatter
    noise = whole.second_noise / whole.counts
    _, parts = _covariances(layout, geometry, within, whole.counts, noise)
    means = shrink_means(whole.means, shares, whole.sum_noise / whole.counts, geometry.rings)
    # how far sites lie apart was not clipped
    apart = max(0.0, float(shares @ scatter.trace(axis1=1, axis2=2)))
    source = replace(whole, radius=math.hypot(whole.radius, math.sqrt(apart)))
    for share, mean, part in zip(_floor(shares), means, parts, strict=True):
        yield Component(float(share), mean, part, source)


def _site_components(
    plan: PublicPlan,
    layout: MomentLayout,
    geometry: Geometry,
    whole: Sums,
    sites: Mapping[str, Sums],
    sums_of: Callable[[str], Sums],
) -> Iterator[Component]:
    """One component a site and class, sites in the order of their names; one that is not in `sites` gets the classes'.

    `sites` are first moments, `sums_of` all of a site's own.
    """
    shares = whole.counts / whole.counts.sum()
    within, noise = whole.seconds / whole.counts[:, None, None], whole.second_noise / whole.counts
    common, classes = _covariances(layout, geometry, within, whole.counts, noise)
    class_means = shrink_means(whole.means, shares, whole.sum_noise / whole.counts, geometry.rings)
    inverse = common.form.root(inverse=True)
    white = [part.form.between(inverse) for part in classes]
    source = whole.first_moments()
    for name, its_shares in _shares_by_site(plan, shares, sites).items():
        if name not in sites:
            for share, mean, part in zip(its_shares, class_means, classes, strict=True):
                yield Component(float(share), mean, part, source)
            continue
        own = sums_of(name)
        total = own.counts.sum()
        site = estimate_departure(common, own.seconds.sum(axis=0) / total, _joint_noise(own), total, geometry)
        means = _site_means(own, class_means, site.form.variances, geometry)
        root = site.form.root()
        for k, part in enumerate(classes):
            base = Covariance(white[k].between(root), part.shown, part.level * site.level / common.level)
            second, count = own.seconds[k] / own.counts[k], float(own.counts[k])
            found = estimate_departure(base, second, own.second_noise / count, count, geometry)
            yield Component(float(its_shares[k]), means[k], found, sites[name])


def _shares_by_site(plan: PublicPlan, shares: Float64, sites: Mapping[str, Sums]) -> dict[str, Float64]:
    """Shares [K] of each site's classes, which sum to 1 over all; `shares` [K] are those of all sites."""
    counts = {}
    for name in sorted(plan.sites):
        if name in sites:
            own = sites[name].counts
            counts[name] = _floor(own / own.sum()) * own.sum()
        else:
            counts[name] = _floor(shares) * plan.sites[name].nominal_patients
    total = np.concatenate(list(counts.values())).sum()
    return {name: own / total for name, own in counts.items()}


def _joint_noise(own: Sums) -> float:
    return own.second_noise * math.sqrt(len(own.counts)) / float(own.counts.sum())


def _site_means(own: Sums, class_means: Float64, variance: Float64, geometry: Geometry) -> Float64:
    """A site's class means: the classes' plus the site's own shift, and more only where it stands out of noise.

    Of a mean of n patients `variance` [d] / n is noise too.
    """
    weights = own.counts / own.counts.sum()
    noise = np.sqrt((own.sum_noise / own.counts[:, None]) ** 2 + variance / own.counts[:, None])
    shift = weights @ (own.means - class_means)
    joint = np.linalg.norm(weights[:, None] * noise, axis=0)
    shift = pull_towards(shift[None], np.zeros((1, len(shift))), joint[None], geometry.rings)
    return pull_towards(own.means, class_means + shift, noise, geometry.rings)


def _covariances(
    layout: MomentLayout, geometry: Geometry, raw: Float64, counts: Float64, noise: Float64
) -> tuple[Covariance, list[Covariance]]:
    """The covariance that the classes share, and each class's own; `noise` [K] is the deviation on the diagonals."""
    shares = counts / counts.sum()
    pooled = np.tensordot(shares, raw, axes=1)
    common = common_covariance(pooled, float(np.linalg.norm(shares * noise)), counts.sum(), layout, geometry)
    parts = []
    for k, share in enumerate(shares):
        others = float(np.linalg.norm(np.delete(shares * noise, k)))
        # the pooled estimate's own error is no difference between classes
        own = raw[k] - pooled + common.matrix
        deviation = math.hypot((1.0 - share) * noise[k], others)
        parts.append(estimate_departure(common, own, deviation, float(counts[k]), geometry))
    return common, parts


def _scatter_between_sites(whole: Sums, sites: Iterable[Sums]) -> Float64:
    """Scatter of the sites' released means about the pooled ones, [K, d, d], less what the noise alone would give."""
    scatter = np.zeros_like(whole.seconds)
    for site in sites:
        offset = site.means - whole.means
        noise = (site.sum_noise / site.counts) ** 2
        outer = offset[:, :, None] * offset[:, None, :] - noise[:, None, None] * np.eye(offset.shape[1])
        scatter += (site.counts / whole.counts)[:, None, None] * outer
    return scatter


def _floor(shares: Float64) -> Float64:
    floored = np.maximum(shares, SMALLEST_SHARE)
    return np.asarray(floored / floored.sum())
