"""Rules of a model that several values must keep together, all that are broken told at once."""

from __future__ import annotations

from collections.abc import Callable


class Faults(ValueError):
    """Several rules that a model's values break, each a sentence."""

    def __init__(self, said: list[str]) -> None:
        super().__init__("; ".join(said))
        self.said = said


def check_all(*checks: Callable[[], None]) -> None:
    """Run every check. Raises Faults with what those found that raised ValueError.

    A check may rest on what an earlier one found wrong: what else such a one raises is passed over.
    """
    found: list[str] = []
    for check in checks:
        try:
            check()
        except Faults as faults:
            found += faults.said
        except ValueError as error:
            found.append(str(error))
        except Exception:
            if not found:
                raise
    if found:
        raise Faults(list(dict.fromkeys(found)))
