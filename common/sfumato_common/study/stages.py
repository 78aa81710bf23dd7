"""The stages of a study plan, one class a kind, read from the records of generators and exchanges."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators.settings import StageSettings

if TYPE_CHECKING:
    # a type checker cannot follow a table: to it any settings are a stage, and any word is a kind
    Stage: TypeAlias = StageSettings
    StageKind: TypeAlias = str
else:
    Stage = Annotated[reduce(or_, (record.settings for record in EXCHANGES.values())), Field(discriminator="kind")]
    StageKind = Literal[tuple(EXCHANGES)]
