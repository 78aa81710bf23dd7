"""An evaluation as one page without a script, a font or a picture from elsewhere."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from sfumato_server.evaluate.report import Report
from sfumato_server.evaluate.shown import HEADINGS, by_figure


def page(report: Report) -> str:
    """HTML; every word of a study or an index is escaped."""
    environment = Environment(
        loader=PackageLoader("sfumato_server.evaluate"), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    template = environment.get_template("evaluation.html.j2")
    return template.render(
        facts=report.facts, notices=report.notices, headings=HEADINGS, figures=list(by_figure(report))
    )
