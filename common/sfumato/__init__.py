"""Sfumato as a library: what a federation is built from, one import away; docs/library.md shows each name at work.

A name is loaded when it is first used, so that `import sfumato` costs nothing. Those of the site and the coordinator
need `sfumato-site` and `sfumato-coordinator` installed; all others come with `sfumato-common`.

>>> import sfumato
>>> release, training = sfumato.GaussianRelease(1.0), sfumato.SampledGaussian(1.1, sampling_rate=0.01, steps=1000)
>>> round(sfumato.epsilon([release, training], delta=1e-5), 2)
4.71
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from sfumato_common import __version__

if TYPE_CHECKING:
    from sfumato_client.anonymise.identities import fit_recogniser
    from sfumato_client.anonymise.in_latent_space import group_patients, k_salsa, linear_walk, plan_walk
    from sfumato_client.ledger import Ledger, Terms
    from sfumato_client.training.dp.engines import private_engine
    from sfumato_common.accounting.accountant import cost, epsilon
    from sfumato_common.accounting.events import GaussianRelease, LaplaceRelease, SampledGaussian
    from sfumato_common.generators.flow.cinn import ConditionalINN
    from sfumato_common.generators.flow.glow import Glow
    from sfumato_common.generators.gan.w_space import WSpace
    from sfumato_common.generators.spectral.local import fit_spectral
    from sfumato_common.generators.spectral.whitening import SpectralModel
    from sfumato_common.generators.starts import initial_model
    from sfumato_common.mechanisms.draws import TorchDraws
    from sfumato_common.mechanisms.noise import SecureNoise
    from sfumato_common.mechanisms.recorder import NoiseRecorder
    from sfumato_common.metrics.features import random_features
    from sfumato_common.metrics.fidelity import frechet_distance, kernel_distance
    from sfumato_common.metrics.prdc import neighbourhood
    from sfumato_common.metrics.tstr import tstr
    from sfumato_common.package.features import read_features
    from sfumato_common.phantom import arrays as phantom_cohort
    from sfumato_common.study.load import load_plan
    from sfumato_common.study.policy import Budget
    from sfumato_server.publish import verify_dataset
    from sfumato_server.publish.torch_dataset import PublishedDataset

__all__ = [
    "Budget",
    "ConditionalINN",
    "GaussianRelease",
    "Glow",
    "LaplaceRelease",
    "Ledger",
    "NoiseRecorder",
    "PublishedDataset",
    "SampledGaussian",
    "SecureNoise",
    "SpectralModel",
    "Terms",
    "TorchDraws",
    "WSpace",
    "__version__",
    "cost",
    "epsilon",
    "fit_recogniser",
    "fit_spectral",
    "frechet_distance",
    "group_patients",
    "initial_model",
    "k_salsa",
    "kernel_distance",
    "linear_walk",
    "load_plan",
    "neighbourhood",
    "phantom_cohort",
    "plan_walk",
    "private_engine",
    "random_features",
    "read_features",
    "tstr",
    "verify_dataset",
]

# where each name stands; the imports above say the same to type checkers and editors
_HOMES = {
    "Budget": "sfumato_common.study.policy:Budget",
    "ConditionalINN": "sfumato_common.generators.flow.cinn:ConditionalINN",
    "cost": "sfumato_common.accounting.accountant:cost",
    "epsilon": "sfumato_common.accounting.accountant:epsilon",
    "fit_recogniser": "sfumato_client.anonymise.identities:fit_recogniser",
    "fit_spectral": "sfumato_common.generators.spectral.local:fit_spectral",
    "frechet_distance": "sfumato_common.metrics.fidelity:frechet_distance",
    "GaussianRelease": "sfumato_common.accounting.events:GaussianRelease",
    "Glow": "sfumato_common.generators.flow.glow:Glow",
    "group_patients": "sfumato_client.anonymise.in_latent_space:group_patients",
    "initial_model": "sfumato_common.generators.starts:initial_model",
    "k_salsa": "sfumato_client.anonymise.in_latent_space:k_salsa",
    "kernel_distance": "sfumato_common.metrics.fidelity:kernel_distance",
    "LaplaceRelease": "sfumato_common.accounting.events:LaplaceRelease",
    "Ledger": "sfumato_client.ledger:Ledger",
    "Terms": "sfumato_client.ledger:Terms",
    "linear_walk": "sfumato_client.anonymise.in_latent_space:linear_walk",
    "load_plan": "sfumato_common.study.load:load_plan",
    "neighbourhood": "sfumato_common.metrics.prdc:neighbourhood",
    "NoiseRecorder": "sfumato_common.mechanisms.recorder:NoiseRecorder",
    "phantom_cohort": "sfumato_common.phantom:arrays",
    "plan_walk": "sfumato_client.anonymise.in_latent_space:plan_walk",
    "private_engine": "sfumato_client.training.dp.engines:private_engine",
    "PublishedDataset": "sfumato_server.publish.torch_dataset:PublishedDataset",
    "random_features": "sfumato_common.metrics.features:random_features",
    "read_features": "sfumato_common.package.features:read_features",
    "SampledGaussian": "sfumato_common.accounting.events:SampledGaussian",
    "SecureNoise": "sfumato_common.mechanisms.noise:SecureNoise",
    "SpectralModel": "sfumato_common.generators.spectral.whitening:SpectralModel",
    "TorchDraws": "sfumato_common.mechanisms.draws:TorchDraws",
    "tstr": "sfumato_common.metrics.tstr:tstr",
    "verify_dataset": "sfumato_server.publish:verify_dataset",
    "WSpace": "sfumato_common.generators.gan.w_space:WSpace",
}
_DISTRIBUTIONS = {
    "sfumato_common": "sfumato-common",
    "sfumato_client": "sfumato-site",
    "sfumato_server": "sfumato-coordinator",
}


def _side(name: str) -> str:
    return _HOMES[name].partition(".")[0]


if not TYPE_CHECKING:  # to a type checker any name would be there

    def __getattr__(name: str) -> object:
        """The object behind a public name (PEP 562). Raises ImportError when its distribution is not installed."""
        if name not in _HOMES:
            raise AttributeError(f"module 'sfumato' has no attribute '{name}'")
        if find_spec(_side(name)) is None:
            distribution = _DISTRIBUTIONS[_side(name)]
            raise ImportError(f"sfumato.{name} needs the distribution '{distribution}': install it", name=_side(name))
        module, _, target = _HOMES[name].partition(":")
        found = getattr(import_module(module), target)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return ["__version__", *sorted(name for name in _HOMES if find_spec(_side(name)) is not None)]
