"""The dossier as one HTML file that needs nothing from outside, no script; light and dark, on a phone and on paper."""

from __future__ import annotations

from html import escape
from pathlib import Path

from sfumato_common.evidence.dossier import Dossier, StatedCheck, StatedFramework, StatedRow
from sfumato_common.evidence.finding import ORDER, Status
from sfumato_common.files import write_atomic

_STYLE = """
:root { --ground: #fdfdfb; --panel: #f3f2ee; --ink: #1d2426; --soft: #566064; --line: #d9d8d2; --mark: #0b6b6b;
  --no: #8c1c13; --no-ground: #fbe9e7; --part: #6b4a00; --part-ground: #fdf1d3; --yes-ground: #dff0ef; }
@media (prefers-color-scheme: dark) { :root { --ground: #14181a; --panel: #1d2326; --ink: #e8eaea; --soft: #a3adb1;
  --line: #353d41; --mark: #6fd0cc; --no: #ffb4a9; --no-ground: #47201c; --part: #f0cf84; --part-ground: #3c3012;
  --yes-ground: #17393a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 "Source Sans 3", "Segoe UI", system-ui, -apple-system, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
:focus-visible { outline: 3px solid var(--mark); outline-offset: 2px; }
.skip { position: absolute; left: -100rem; padding: .5rem 1rem; background: var(--ground); color: var(--mark); }
.skip:focus { left: .5rem; top: .5rem; z-index: 1; }
.study { margin: 0; color: var(--mark); font-weight: 600; }
h1 { margin: .1rem 0 1rem; font-size: 2.1rem; line-height: 1.2; text-wrap: balance; }
h2 { margin: 3rem 0 .8rem; font-size: 1.35rem; border-top: 1px solid var(--line); padding-top: 1.2rem; }
p, li { max-width: 48rem; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
.notice { border-left: 4px solid var(--no); padding-left: 1rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: 1.2rem 0 0; }
a { color: var(--mark); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: 1px; margin: 1.5rem 0 0;
  background: var(--line); border: 1px solid var(--line); }
dl div { background: var(--ground); padding: .7rem .9rem; }
dt { color: var(--soft); font-size: .875rem; }
dd { margin: 0; font-size: 1.2rem; font-weight: 600; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0 1rem; }
caption { text-align: left; color: var(--soft); font-size: .875rem; padding-bottom: .3rem; }
th, td { text-align: left; padding: .5rem .9rem .5rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  min-width: 7rem; overflow-wrap: anywhere; }
thead th { color: var(--soft); font-size: .875rem; }
td p { margin: 0 0 .5rem; }
.status { display: inline-block; padding: .05rem .5rem; font-size: .875rem; font-weight: 600; white-space: nowrap; }
.not-shown { color: var(--no); background: var(--no-ground); }
.partly { color: var(--part); background: var(--part-ground); }
.shown { color: var(--mark); background: var(--yes-ground); }
.missing { color: var(--no); }
.checks { list-style: none; margin: 0; padding: 0; }
.checks li { margin: 0 0 .35rem; }
@media (max-width: 45rem) { main { padding: 1.5rem 1rem 3rem; } thead { position: absolute; left: -100rem; }
  table, tbody, tr, td { display: block; } td { padding: .15rem 0; border: 0; } tr { padding: .8rem 0;
  border-bottom: 1px solid var(--line); } }
code { font: .85em/1.4 ui-monospace, "DejaVu Sans Mono", Consolas, monospace; overflow-wrap: anywhere; }
@media print { nav, .skip { display: none; } h2 { break-after: avoid; } tr { break-inside: avoid; } }
"""
_WHO = {"coordinator": "what the coordinator can show", "site": "what this site can show"}


def render(dossier: Dossier) -> str:
    """The page; every text is escaped. What is not shown stands first."""
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(dossier.study)}: evidence dossier</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
    )
    body = [
        _header(dossier),
        _not_shown(dossier),
        _found(dossier),
        *(_table(one, dossier) for one in dossier.frameworks),
        _evidence(dossier),
    ]
    skip = '<a class="skip" href="#not-shown">Skip to what is not shown</a>\n'
    return f"{head}{skip}<main>\n{''.join(body)}</main>\n</body>\n</html>\n"


def write_dossier(dossier: Dossier, folder: Path) -> None:
    """The page and the JSON in `folder`: dossier.html and dossier.json; a site's for its owner alone."""
    mode = 0o600 if dossier.side == "site" else 0o644
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "dossier.json", dossier.encode(), mode)
    write_atomic(folder / "dossier.html", render(dossier), mode)


def _header(dossier: Dossier) -> str:
    facts = [(status.capitalize(), f"{dossier.counts.get(status, 0)} rows") for status in ORDER]
    facts += [("Made", dossier.made), ("Plan", dossier.plan_hash[:16])]
    listed = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    places = [
        ("not-shown", "Not shown"),
        ("found", "What the evidence says"),
        *((one.key, one.title) for one in dossier.frameworks),
        ("evidence", "Evidence"),
    ]
    links = "".join(f'<a href="#{escape(place)}">{escape(name)}</a>' for place, name in places)
    return (
        f'<header>\n<p class="study">{escape(dossier.study)}</p>\n<h1>Evidence dossier: {_WHO[dossier.side]}</h1>\n'
        f'<p class="notice">{escape(dossier.notice)}</p>\n<dl>{listed}</dl>\n'
        f'<nav aria-label="Sections">{links}</nav>\n</header>\n'
    )


def _clauses(name: str, dossier: Dossier) -> str:
    """The rows that a check speaks to."""
    found = [f"{one.key} {row.clause}" for one in dossier.frameworks for row in one.rows if name in row.checks]
    return f'<span class="soft">Asked by: {escape("; ".join(found))}</span>'


def _not_shown(dossier: Dossier) -> str:
    """Each gap once, with the clauses that it stands in."""
    gaps = [(name, check) for name, check in dossier.checks.items() if check.status == "not shown"]
    rows = "".join(
        f'<li id="{_place(name)}"><b>{escape(name.capitalize())}.</b> {escape(check.missing)}<br>'
        f"{_clauses(name, dossier)}</li>\n"
        for name, check in gaps
    )
    return (
        f'<section aria-labelledby="not-shown">\n<h2 id="not-shown">Not shown</h2>\n<p>{len(gaps)} things that clauses '
        f"ask for and no evidence here carries.</p>\n<ul>{rows}</ul>\n</section>\n"
    )


def _found(dossier: Dossier) -> str:
    """What the evidence carries, in part or whole, each once."""
    order = sorted(dossier.checks.items(), key=lambda item: ORDER.index(item[1].status))
    rows = "".join(_said(name, check, dossier) for name, check in order if check.status != "not shown")
    return (
        '<section aria-labelledby="found">\n<h2 id="found">What the evidence says</h2>\n'
        f"<p>Numbers in brackets are pieces of evidence, listed at the end.</p>\n<ul>{rows}</ul>\n</section>\n"
    )


def _said(name: str, check: StatedCheck, dossier: Dossier) -> str:
    links = ", ".join(f'<a href="#e{place + 1}">{place + 1}</a>' for place in check.evidence)
    missing = f'<br><span class="missing">Not shown: {escape(check.missing)}</span>' if check.missing else ""
    return (
        f'<li id="{_place(name)}">{_badge(check.status)} <b>{escape(name.capitalize())}.</b> {escape(check.says)} '
        f"[{links}]{missing}<br>{_clauses(name, dossier)}</li>\n"
    )


def _place(name: str) -> str:
    return "c-" + "".join(sign if sign.isalnum() else "-" for sign in name)


def _table(framework: StatedFramework, dossier: Dossier) -> str:
    rows = "".join(_row(row, dossier) for row in framework.rows)
    names = ("Clause", "Asks, in our words", "Status", "Rests on")
    columns = "".join(f'<th scope="col">{name}</th>' for name in names)
    return (
        f'<section aria-labelledby="{framework.key}">\n<h2 id="{framework.key}">{escape(framework.title)}</h2>\n'
        f'<p>{escape(framework.note)}</p>\n<div class="wide"><table>\n<thead><tr>{columns}</tr></thead>\n'
        f"<tbody>{rows}</tbody>\n</table></div>\n</section>\n"
    )


def _row(row: StatedRow, dossier: Dossier) -> str:
    rests = "".join(
        f'<li>{_badge(dossier.checks[name].status)} <a href="#{_place(name)}">{escape(name)}</a></li>'
        for name in row.checks
    )
    return (
        f'<tr><td>{escape(row.clause)}<br><span class="soft">{escape(row.read)}</span></td><td>{escape(row.asks)}</td>'
        f'<td>{_badge(row.status)}</td><td><ul class="checks">{rests}</ul></td></tr>\n'
    )


def _badge(status: Status) -> str:
    return f'<span class="status {status.replace(" ", "-")}">{"NOT SHOWN" if status == "not shown" else status}</span>'


def _evidence(dossier: Dossier) -> str:
    rows = "".join(
        f'<tr id="e{place + 1}"><td>{place + 1}</td><td>{escape(one.name)}</td><td>{escape(one.behind)}</td>'
        f"<td><code>{one.sha256}</code></td></tr>\n"
        for place, one in enumerate(dossier.evidence)
    )
    columns = "".join(
        f'<th scope="col">{name}</th>' for name in ("No.", "File or entry", "Who stands behind it", "sha256")
    )
    return (
        '<section aria-labelledby="evidence">\n<h2 id="evidence">Evidence</h2>\n<div class="wide"><table>\n'
        f"<thead><tr>{columns}</tr></thead>\n<tbody>{rows}</tbody>\n</table></div>\n</section>\n"
    )
