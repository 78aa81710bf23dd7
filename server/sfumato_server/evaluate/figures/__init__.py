"""Figures of an evaluation: a file and a line of the table each. To add one: both, and a planted fault."""

from __future__ import annotations

from sfumato_server.evaluate.figures.augmentation import AUGMENTATION
from sfumato_server.evaluate.figures.calibration import CALIBRATION
from sfumato_server.evaluate.figures.diversity import DIVERSITY
from sfumato_server.evaluate.figures.fidelity import FIDELITY
from sfumato_server.evaluate.figures.figure import Figure
from sfumato_server.evaluate.figures.groups import GROUPED
from sfumato_server.evaluate.figures.memorisation import MEMORISATION
from sfumato_server.evaluate.figures.methods import METHODS
from sfumato_server.evaluate.figures.own import OWN
from sfumato_server.evaluate.figures.tstr import TSTR

FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (TSTR, METHODS, OWN, AUGMENTATION, CALIBRATION, GROUPED, FIDELITY, MEMORISATION, DIVERSITY)
}

__all__ = ["FIGURES", "Figure"]
