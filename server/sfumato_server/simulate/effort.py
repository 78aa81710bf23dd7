"""How long a simulated study takes, roughly, before it begins: seconds by what its plan makes sites do.

The weights were read off runs of the demo's plan; once a study of the grid has run, its own time sets the scale.
"""

from __future__ import annotations

from sfumato_common.accounting.events import SampledGaussian
from sfumato_common.generators import GENERATORS
from sfumato_common.study.plan import Plan

# seconds of a core, at 32 px of one channel: a patient drawn and read in, an answer, a step of DP-SGD and a record in
# it at a site; the rounds, and a model's images and classifier, at the coordinator
_PATIENT, _ANSWER, _STEP, _RECORD, _ROUNDS, _MODEL = 0.003, 0.35, 0.03, 0.0003, 9.0, 4.0
_PIXELS = 32 * 32


def study_effort(plan: Plan, patients: int, workers: int) -> float:
    """Seconds of one study of `patients` a site on so many free cores: homes, rounds and figures, no release."""
    scale = _scale(plan)
    site = _ANSWER * (1 + sum(stage.rounds for stage in plan.stages)) + scale * _PATIENT * patients
    for stage in plan.stages:
        if isinstance(event := stage.event, SampledGaussian):
            site += stage.rounds * event.steps * (_STEP + scale * _RECORD * event.sampling_rate * patients)
    models = sum(stage.kind in GENERATORS for stage in plan.stages)
    return _ROUNDS + scale * _MODEL * models + site * len(plan.sites) / min(workers, len(plan.sites))


def real_effort(plan: Plan, patients: int, workers: int) -> float:
    """Seconds of a classifier on real images of as many."""
    return _scale(plan) * (_MODEL + _PATIENT * patients * len(plan.sites) / min(workers, len(plan.sites)))


def _scale(plan: Plan) -> float:
    return plan.image.size**2 * plan.image.channels / _PIXELS
