"""Feature spaces that a researcher brings: a built-in name, or a YAML that names a file of weights by its sha256."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sfumato_common.encoders.encoder import Encoder, Encoders
from sfumato_common.encoders.settings import BUILT_IN, EncoderTerms
from sfumato_common.errors import ConfigError
from sfumato_common.strict import load_yaml


def read_encoders(given: Sequence[str]) -> dict[str, Encoder]:
    """Encoders by name, each from a file whose hash was checked; a YAML's weights stand beside it.

    Raises ConfigError for a word that is neither, and for maps of features; VerificationError for another file.
    """
    found: dict[str, Encoder] = {}
    for word in given:
        path = Path(word)
        if word not in BUILT_IN and path.suffix not in (".yaml", ".yml"):
            raise ConfigError(
                f"--encoder takes {', '.join(BUILT_IN)}, or a YAML file with the keys file, sha256, architecture and "
                "trained_on"
            )
        name, folder = (word, Path()) if word in BUILT_IN else (path.stem, path.parent)
        terms = BUILT_IN.get(word) or load_yaml(path, EncoderTerms)
        if terms.is_map or name in found:
            raise ConfigError(
                f"--encoder {name}: "
                + ("its features keep their place; name one of embeddings" if terms.is_map else "given twice")
            )
        found[name] = Encoders(folder, {name: terms}).load(name)
    return found
