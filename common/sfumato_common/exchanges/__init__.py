"""Every kind of stage that a plan may have: the generators, and the exchanges that leave no model to sample.

To add an exchange that is no generator: a module here with its settings and record, its two halves, one line below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato_common.exchanges.choice import CHOICE
from sfumato_common.exchanges.features import FEATURES
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.base import Exchange

EXCHANGES: Mapping[str, Exchange[Any]] = {
    **GENERATORS,
    FEATURES.kind: FEATURES,
    CHOICE.kind: CHOICE,
}
