"""Models that a plan is given: trained under an earlier plan, files named by what the plan pins, checked when read."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load, save

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import write_atomic
from sfumato_common.study.lineage import given_models
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays, fingerprint


def keep_given(folder: Path, released: Arrays) -> str:
    """Keep a released model in `folder`; its fingerprint, which a plan pins."""
    digest = fingerprint(released)
    write_atomic(_path(folder, digest), save(dict(released)))
    return digest


def load_given(folder: Path, plan: Plan) -> dict[str, dict[str, AnyArray]]:
    """The released arrays of every model that `plan` is given, by its stage's kind.

    Raises ConfigError when a file is missing, VerificationError when it is not what the plan pins.
    """
    found: dict[str, dict[str, AnyArray]] = {}
    for kind, digest in given_models(plan).items():
        path = _path(folder, digest)
        if not path.exists():
            raise ConfigError(
                f"the plan is given a {kind} model {digest[:16]}... that is not here; 'sfumato study rerelease' makes "
                "the home with it"
            )
        try:
            found[kind] = load(path.read_bytes())
        except SafetensorError:
            found[kind] = {}
        if fingerprint(found[kind]) != digest:
            raise VerificationError(f"the given {kind} model is damaged; make the home again from the earlier one")
    return found


def _path(folder: Path, digest: str) -> Path:
    return folder / f"{digest}.safetensors"
