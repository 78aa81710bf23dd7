"""Choice stage at the coordinator: a classifier a candidate goes out, noisy histograms come back, one model is chosen.

All of it is post-processing of released models and of the sites' noised answers; see metrics/choice.py for the rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from sfumato_common.errors import FederationError
from sfumato_common.exchanges.choice import HISTOGRAMS, WINNER, ChoiceStage
from sfumato_common.generators.components import component_shares, labels_of
from sfumato_common.generators.sampling import sample_images
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.spectral.moments import moments_distance
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.metrics.choice import SUMMED, Choice, decide, scale_log_odds
from sfumato_common.metrics.utility import score, train_classifier
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays
from sfumato_server.rounds.strategies import Sum
from sfumato_server.rounds.strategies.averaging import check_replies

_STEPS = 300
_DISTANCES, _SITE, _SIGMA = "distances", "site/", "noise"


class ChoiceStrategy:
    """One exchange. Samples and classifiers follow from the plan's digest and the models: asked again after a restart,
    sites get the very same bytes and answer with what they were charged for before."""

    def __init__(self, plan: Plan, stage: ChoiceStage, released: Mapping[str, Arrays]) -> None:
        self._plan, self._stage, self._models = plan, stage, released
        self._outbound: dict[str, AnyArray] = {}
        self._distances = np.zeros(0)
        self._histograms: dict[str, AnyArray] = {}
        self._sigma = stage.noise_multiplier

    def outbound(self, round_number: int, site: str) -> dict[str, AnyArray]:
        """The classifiers of all candidates, the same for every site."""
        if not self._outbound:
            self._prepare()
        return dict(self._outbound)

    def absorb(self, round_number: int, replies: Mapping[str, Arrays], generator: torch.Generator) -> None:
        """Keep the histograms; the choice is read off them."""
        check_replies(self._plan, self._stage, replies)
        self._histograms = {site: np.array(arrays[HISTOGRAMS]) for site, arrays in replies.items()}

    def absorb_sum(self, release: Arrays, about: Sum, generator: torch.Generator) -> None:
        """Keep the histograms of all sites together, and how much noise is in them."""
        self._histograms = {SUMMED: np.array(release[HISTOGRAMS])}
        self._sigma = about.noise_multiplier

    def choice(self) -> Choice:
        """What was chosen. Raises FederationError before the exchange."""
        if not self._histograms:
            raise FederationError("the choice stage has not run; run it first")
        return decide(self._plan, self._sigma, self._histograms, self._distances, self._stage.trimmed)

    def released(self) -> dict[str, AnyArray]:
        """No model: only the place of the chosen one among the candidates, [1]."""
        return {WINNER: np.array([self._plan.candidates.index(self.choice().winner)])}

    def state(self) -> dict[str, AnyArray]:
        """The sites' noisy histograms, the noise in each, and the candidates' distances."""
        own = {f"{_SITE}{site}": value for site, value in self._histograms.items()}
        return {**own, _DISTANCES: self._distances, _SIGMA: np.array([self._sigma])}

    def restore(self, state: Arrays) -> None:
        """Go on from what `state` returned."""
        self._distances = state[_DISTANCES]
        if _SIGMA in state:
            self._sigma = float(state[_SIGMA][0])
        self._histograms = {name.removeprefix(_SITE): v for name, v in state.items() if name.startswith(_SITE)}

    def _prepare(self) -> None:
        """Sample, measure and train: the same components and the same classifier's start for every candidate."""
        plan, spectral = self._plan, self._models["spectral"]
        seed = int(plan.study_digest[:15], 16) % 2**31
        draws = TorchDraws(torch.Generator().manual_seed(seed))
        shares = torch.as_tensor(component_shares(plan, spectral))
        components = draws.categorical(shares, self._stage.images).numpy()
        distances = []
        for kind in plan.candidates:
            draws = TorchDraws(torch.Generator().manual_seed(seed))
            images = sample_images(plan, kind, self._models[kind], components, draws)
            distances.append(moments_distance(plan, spectral, images, components))
            trained = train_classifier(plan, images, labels_of(plan, components), seed=seed, steps=_STEPS)
            sent = scale_log_odds(trained, score(plan, trained, images))
            self._outbound |= {f"{kind}:{name}": value for name, value in sent.items()}
        self._distances = np.array(distances)


def choice_report(plan: Plan, choice: Choice) -> dict[str, Any]:
    """The choice as JSON for status, report and run.json; figures to four decimals, AUC with its 95 % interval."""
    stage = stage_of(plan, ChoiceStage)
    judged = []
    for item in choice.judged:
        value = asdict(item)
        spread = None if item.deviation is None else 1.96 * item.deviation
        value |= {
            "low": None if item.auc is None or spread is None else max(0.0, item.auc - spread),
            "high": None if item.auc is None or spread is None else min(1.0, item.auc + spread),
        }
        judged.append({name: round(v, 4) if isinstance(v, float) else v for name, v in value.items()})
    return {
        "winner": choice.winner,
        "candidates": judged,
        "sites": list(choice.sites),
        "what": "scores of training patients under a classifier trained on each model's images, as noisy histograms; "
        "a trained model must beat the spectral one by more than the noise",
        "noise": f"Gaussian, noise multiplier {stage.noise_multiplier:g}, on {stage.bins} score bins a class and model",
    }
