"""What the round loop tells whoever watches a study: one small protocol, so that rounds know no page and no picture."""

from __future__ import annotations

from typing import Any, Protocol

from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays


class Progress(Protocol):
    """Somebody who watches a study."""

    def site(self, name: str, state: str, code: str = "") -> None:
        """One site's state word: absent, online, working, done, refused, lost; `code` says why, of the last two."""
        ...

    def resume(self, stage: str, rounds: int) -> None:
        """`rounds` of `stage` were finished before a restart."""
        ...

    def follow(self, plan: Plan) -> None:
        """Sites were admitted: `plan` has them."""
        ...

    def begin(self, stage: str, number: int, rounds: int) -> None:
        """An exchange starts."""
        ...

    def end(self, note: dict[str, Any]) -> None:
        """The exchange ended."""
        ...

    def model(self, stage: str, number: int, released: Arrays) -> None:
        """Round `number` of `stage` is done and kept: its model as it would be released."""
        ...

    def choose(self, model: str) -> None:
        """The choice stage chose `model` for the release."""
        ...
