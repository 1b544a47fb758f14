"""Mediated logins over HTTP: two endpoints for the program that begins one, and the pages for the person who finishes it.

    POST /v1/logins                   begin: a code for the user
    POST /v1/logins/{login}           how far is it?
    GET  /login                       the form for the code
    POST /login                       the code; who is asking, and for what
    POST /login/confirm               "this is me", on to the provider; or "not me"
    GET  /login/callback[/{issuer}]   back from the provider

None of them asks for a certificate, and none grants anything: that is ``POST /v1/certificates`` with the login as proof, or
``POST /v1/links`` if it was begun for that.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final

import structlog
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from certauth.errors import CertauthError, Refused, RequestError, UnavailableError
from certauth.names import Kind, Principal
from certauth.requests import parse_csr
from policy.caller import STATE
from policy.request import client_of
from signer import login_pages as pages
from signer import problems
from signer.limits import RateLimiter, read_body
from signer.login import Logins, cookie_name
from signer.login_code import network_of
from signer.login_forms import form_cookie, form_value, keep_form_cookie, malformed, own_form, set_cookie
from signer.login_pages import Facility, Page
from signer.login_state import Answer
from signer.schemas import Secret, parse

log = structlog.get_logger("signer")

_MAX_STATE_BODY: Final = 1024
_LONGEST_PRINCIPAL: Final = 512

Handler = Callable[[Request], Awaitable[Response]]
Observe = Callable[[str, str, str], None]
"""Told operation, outcome (``done``, ``refused``, ``failed``) and code of every request."""


def _person(text: str) -> str:
    try:
        principal = Principal.parse(text)
    except CertauthError as error:
        raise ValueError(error.message) from error
    if principal.kind is not Kind.USER:
        raise ValueError("not a person")
    return str(principal)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("not printable")
    return text


class BeginBody(BaseModel):
    """``POST /v1/logins``. ``host`` is how the machine calls itself; ``invite`` counts when the certificate is asked for.

    ``link`` is the person to whom the login is to be linked. It is then good for ``POST /v1/links`` on a connection of theirs
    and for nothing else, as it is good for ``POST /v1/certificates`` alone without one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    csr: Annotated[str, Field(max_length=32_768)]
    issuer: Annotated[str, Field(max_length=64)] | None = None
    host: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
    secret_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", repr=False)]
    invite: Annotated[str | None, Field(repr=False, min_length=16, max_length=128)] = None
    link: Annotated[str, Field(max_length=_LONGEST_PRINCIPAL), AfterValidator(_person)] | None = None


class StateBody(BaseModel):
    """``POST /v1/logins/{login}``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secret: Secret


def login_routes(
    logins: Logins,
    *,
    facility: Facility,
    public_url: str,
    limiter: RateLimiter,
    body_limit: int = 65_536,
    observe: Observe = lambda _operation, _outcome, _code: None,
    ticks: Callable[[], float] = time.monotonic,
    entropy: Callable[[int], bytes] = secrets.token_bytes,
) -> list[Route]:
    """The routes, for behind the service's own door; each is ``public`` there. ``public_url`` is the signer's origin."""
    handlers = _Handlers(
        logins=logins,
        facility=facility,
        public_url=public_url,
        limiter=limiter,
        body_limit=body_limit,
        observe=observe,
        ticks=ticks,
        entropy=entropy,
    )

    def route(path: str, handler: Handler, operation: str, *, method: str = "GET") -> Route:
        say = _problem if path.startswith("/v1/") else _problem_page
        return Route(path, _answering(handler, operation, say, observe), methods=[method])

    return [
        route("/v1/logins", handlers.begin, "login", method="POST"),
        route("/v1/logins/{login}", handlers.state, "login-state", method="POST"),
        route("/login", handlers.form, "login-form"),
        route("/login", handlers.enter, "login-code", method="POST"),
        route("/login/confirm", handlers.confirm, "login-confirm", method="POST"),
        route("/login/callback", handlers.callback, "login-callback"),
        route("/login/callback/{issuer}", handlers.callback, "login-callback"),
    ]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _Handlers:
    logins: Logins
    facility: Facility
    public_url: str
    limiter: RateLimiter
    body_limit: int
    observe: Observe
    ticks: Callable[[], float]
    entropy: Callable[[int], bytes]

    async def begin(self, request: Request) -> Response:
        self._spend(request)
        body = parse(BeginBody, await read_body(request, limit=self.body_limit))
        begun = await self.logins.begin(
            spki=parse_csr(body.csr).spki,
            issuer=body.issuer,
            host=body.host,
            secret_digest=bytes.fromhex(body.secret_sha256),
            address=_address(request),
            link=body.link,
        )
        members = {name: getattr(begun, name) for name in ("login", "user_code", "verification_uri", "expires_in", "interval")}
        return JSONResponse(members, status_code=201, headers=pages.SAFE_HEADERS)

    async def state(self, request: Request) -> Response:
        body = parse(StateBody, await read_body(request, limit=_MAX_STATE_BODY))
        try:
            progress = self.logins.state(request.path_params["login"], body.secret)
        except RequestError:
            # Only who does not know the secret is counted by address: a machine with a hundred users asks a hundred times as
            # often as a laptop, each login at its own pace.
            self._spend(request)
            raise
        return JSONResponse({"state": progress.state, "interval": progress.interval}, headers=pages.SAFE_HEADERS)

    async def form(self, request: Request) -> Response:
        self._spend(request)
        return self._code_page(request)

    async def enter(self, request: Request) -> Response:
        self._spend(request)
        fields = await own_form(request, public_url=self.public_url)
        address = _address(request)
        try:
            shown = self.logins.enter(fields.get("code", ""), address=address, cookies=request.cookies)
        except Refused as error:
            _note(request, "login-code", error, self.observe)
            return self._code_page(request, wrong=error)
        response = _html(pages.confirm_page(self.facility, shown, form=fields["form"], browser_address=address))
        if shown.cookie is not None:
            set_cookie(response, cookie_name(shown.login), shown.cookie, seconds=shown.seconds, same_site="Lax")
        return response

    async def confirm(self, request: Request) -> Response:
        self._spend(request)
        fields = await own_form(request, public_url=self.public_url)
        login, answer = fields.get("login", ""), fields.get("answer")
        if answer not in ("yes", "no"):
            raise malformed("it says neither yes nor no")
        url = await self.logins.confirm(login, cookies=request.cookies, yes=answer == "yes")
        if url is not None:
            return RedirectResponse(url, status_code=303, headers=pages.SAFE_HEADERS)
        response = _html(pages.denied_page())
        set_cookie(response, cookie_name(login), "", seconds=0, same_site="Lax")
        return response

    async def callback(self, request: Request) -> Response:
        self._spend(request)
        answer = Answer.read(request.scope["query_string"].decode("ascii", "replace"))
        issuer, address = request.path_params.get("issuer"), _address(request)
        try:
            login, identity = await self.logins.callback(answer, issuer=issuer, cookies=request.cookies, address=address)
        except CertauthError as error:
            _note(request, "login-callback", error, self.observe)
            # Only an answer to a login of this very browser is repeated: an address can be written by anybody.
            words = answer.description if error.code in ("provider-denied", "provider-refused") else None
            return _problem_page(request, error, provider_says=words)
        who = identity.name or identity.email or identity.subject
        response = _html(pages.done_page(who=who, issuer_id=identity.issuer_id))
        set_cookie(response, cookie_name(login), "", seconds=0, same_site="Lax")
        return response

    def _code_page(self, request: Request, *, wrong: Refused | None = None) -> Response:
        cookie = form_cookie(request, self.entropy)
        sentence = None if wrong is None else f"{wrong.message.capitalize()}: {wrong.hint}."
        page = pages.code_page(self.facility, form=form_value(cookie), wrong=sentence)
        response = _html(page, status=200 if wrong is None else problems.status_of(wrong))
        keep_form_cookie(response, cookie)
        return response

    def _spend(self, request: Request) -> None:
        address, uid = client_of(request.scope)
        self.limiter.spend(network_of(address) if address else f"uid {uid}", at=self.ticks())


def _answering(
    handler: Handler, operation: str, say: Callable[[Request, CertauthError], Response], observe: Observe
) -> Handler:
    """The handler with every error said in the form of its route, counted and logged."""

    async def answer(request: Request) -> Response:
        try:
            response = await handler(request)
        except CertauthError as error:
            _note(request, operation, error, observe)
            return say(request, error)
        except Exception:  # the last resort: whatever went wrong, nobody is logged in
            log.exception("request.failed", operation=operation, request_id=_request_id(request))
            failure = UnavailableError("internal", "the service failed; nobody was logged in", hint="try again later")
            observe(operation, "failed", failure.code)
            return say(request, failure)
        if response.status_code < 400:
            observe(operation, "done", "")
            log.info("request.done", operation=operation, request_id=_request_id(request))
        return response

    return answer


def _note(request: Request, operation: str, error: CertauthError, observe: Observe) -> None:
    observe(operation, "refused" if problems.status_of(error) < 500 else "failed", error.code)
    log.info("request.refused", operation=operation, code=error.code, request_id=_request_id(request))


def _problem(request: Request, error: CertauthError) -> Response:
    return problems.answer(error, request_id=_request_id(request))


def _problem_page(request: Request, error: CertauthError, *, provider_says: str | None = None) -> Response:
    page = pages.problem_page(
        code=error.code,
        sentence=error.message,
        hint=error.hint,
        request_id=_request_id(request),
        provider_says=provider_says,
    )
    response = _html(page, status=problems.status_of(error))
    if error.retry_after is not None:
        response.headers["retry-after"] = str(error.retry_after)
    return response


def _html(page: Page, *, status: int = 200) -> Response:
    return HTMLResponse(page.html, status_code=status, headers=page.headers())


def _request_id(request: Request) -> str:
    return str(request.scope["state"][STATE].request_id)


def _address(request: Request) -> str | None:
    return client_of(request.scope)[0]
