"""An evaluation as one page without a script, a font or a picture from elsewhere."""

from __future__ import annotations

from sfumato_common.pages import html_templates
from sfumato_server.evaluate.report import Report
from sfumato_server.evaluate.shown import HEADINGS, by_figure


def page(report: Report) -> str:
    """HTML; every word of a study or an index is escaped."""
    environment = html_templates("sfumato_server.evaluate")
    template = environment.get_template("evaluation.html.j2")
    return template.render(
        facts=report.facts, notices=report.notices, headings=HEADINGS, figures=list(by_figure(report))
    )
