"""What the commands that make a stage's start share: which stages there are, the plan, and what is said in the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sfumato_common.command_line import file_bytes, say
from sfumato_common.errors import ConfigError
from sfumato_common.files import write_atomic
from sfumato_common.generators import GENERATORS
from sfumato_common.strict import parse
from sfumato_common.study.load import load_plan
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays, fingerprint

PRETRAINED = [kind for kind, record in GENERATORS.items() if record.pretraining]
STARTED = [kind for kind, record in GENERATORS.items() if "start" in record.settings.model_fields]


def one_of(kinds: Sequence[str]) -> str:
    """Help of an option that names a stage of these kinds."""
    return "The stage. " + " ".join(f"{kind}: {GENERATORS[kind].help}" for kind in kinds)


def write_start(weights: Arrays, source: str, stage: str, out: Path) -> None:
    """Write the file; say what to put into the plan and where the file goes."""
    from safetensors.numpy import save

    write_atomic(out, save(dict(weights)))
    say(
        f"stage '{stage}' of the plan: start: {{source: {source}, sha256: {fingerprint(weights)}}}\n"
        f"then give '{out.name}' to the coordinator: sfumato coordinator init --start FILE"
    )


def read_plan(path: Path) -> Plan:
    """The plan in YAML as it was written, or in JSON as the coordinator's home keeps it."""
    if path.suffix != ".json":
        return load_plan(path)
    try:
        value = json.loads(file_bytes(path))
    except ValueError:
        raise ConfigError(f"'{path.name}' is not valid JSON; give the plan as it was written") from None
    return parse(value, Plan, path.name)
