"""The pages and their addresses: the queue, a release, one candidate beside its nearest patients, a decision.

No script runs and nothing is fetched from elsewhere. Whatever goes wrong is one sentence on a page.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from sfumato_client.review.guard import LARGEST_FORM, Guard
from sfumato_client.review.pages import Pages
from sfumato_client.site.desk import take_decision
from sfumato_common.errors import ConfigError, SfumatoError
from sfumato_common.pages import html_templates

_WRONG_S = 1.0  # a wrong passphrase is answered after that long


def make_app(root: Path, token: str, port: int) -> ASGIApp:
    """The stewards' page over the home `root`, guarded; see `Guard`."""
    base, pages = f"/{token}", Pages(root)
    environment = html_templates("sfumato_client.review")

    def page(template: str, facts: dict[str, Any], status: int = 200) -> Response:
        return HTMLResponse(environment.get_template(template).render(base=base, **facts), status)

    def shown(template: str, facts: Callable[[Request], dict[str, Any]]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            try:
                return page(template, facts(request))
            except SfumatoError as error:
                return page("error.html.j2", {"said": str(error)}, 409)

        return answer

    def image(request: Request) -> Response:
        try:
            return Response(pages.image(*_at(request)), media_type="image/png")
        except SfumatoError:
            return Response(status_code=404)

    async def decide(request: Request) -> Response:
        form = QueryParams((await _body(request)).decode("utf-8", "replace"))
        return await run_in_threadpool(_decide, request, form)

    def _decide(request: Request, form: QueryParams) -> Response:
        verdict, said = form.get("verdict", ""), {key: form.get(key, "") for key in ("steward", "reason", "ground")}
        try:
            name = pages.name(request.path_params["plan"], request.path_params["part"])
            if verdict not in ("approve", "refuse"):
                raise ConfigError("choose approve or refuse")
            ground, sets = (said["ground"] if verdict == "refuse" else ""), form.get("sets", "").split()
            secret = form.get("passphrase", "").encode()
            take_decision(root, name, verdict, said["steward"], secret, said["reason"], ground, sets)  # type: ignore[arg-type]
        except SfumatoError as error:
            time.sleep(_WRONG_S)
            return page("error.html.j2", {"said": str(error)}, 409)
        pages.forget()
        return RedirectResponse(f"{base}/release/{request.path_params['plan']}/{request.path_params['part']}", 303)

    style = environment.get_template("style.css.j2").render()
    routes = [
        Route("/", shown("queue.html.j2", lambda request: pages.queue())),
        Route("/style.css", lambda request: Response(style, media_type="text/css")),
        Route("/release/{plan}/{part}", shown("release.html.j2", _release(pages))),
        Route("/release/{plan}/{part}/decide", decide, methods=["POST"]),
        Route("/release/{plan}/{part}/{set:int}/{number:int}", shown("candidate.html.j2", _candidate(pages))),
        Route("/image/{plan}/{part}/{set:int}/{number:int}.png", image),
    ]
    within = [Route(f"{base}{route.path}", route.endpoint, methods=list(route.methods or ())) for route in routes]
    return Guard(Starlette(routes=within), token, port)


def _release(pages: Pages) -> Callable[[Request], dict[str, Any]]:
    def facts(request: Request) -> dict[str, Any]:
        number = request.query_params.get("page", "1")
        where = request.path_params
        return pages.release(where["plan"], where["part"], int(number) if number.isdecimal() else 1)

    return facts


def _candidate(pages: Pages) -> Callable[[Request], dict[str, Any]]:
    return lambda request: pages.candidate(*_at(request))


def _at(request: Request) -> tuple[str, str, int, int]:
    where = request.path_params
    return where["plan"], where["part"], where["set"], where["number"]


async def _body(request: Request) -> bytes:
    found = b""
    async for piece in request.stream():
        found += piece
        if len(found) > LARGEST_FORM:
            return b""
    return found
