"""OAuth's endpoints: token (RFC 6749, RFC 8693), introspection (RFC 7662), revocation (RFC 7009), metadata (RFC 8414), keys.

They are for clients and services that speak OAuth; each leads to the same acts as the endpoints under ``/v1``. The client
authenticates with its certificate (RFC 8705 §2), which the door has verified before a request comes here.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from certauth.errors import CertauthError, RequestError
from signer import problems
from signer.api.answering import Routes, ip_of, peer_of, request_id_of
from signer.key_ring import JWKS_MAX_AGE
from signer.limits import read_body
from signer.oauth import ACCESS_TOKEN, EXCHANGE, JWT, error_of, read_form, read_token_request
from signer.service import Service

_FORM = "application/x-www-form-urlencoded"
_PRIVATE = {"cache-control": "no-store", "pragma": "no-cache"}  # RFC 6749 §5.1

Handler = Callable[[Request], Awaitable[Response]]


def oauth_routes(service: Service) -> list[Route]:
    """``/token``, ``/introspect``, ``/revoke``, and the documents that lead to them."""

    async def form_of(request: Request) -> dict[str, str]:
        peer = peer_of(request)
        service.limiter.spend(str(peer.principal), at=time.monotonic())
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
            raise RequestError("form-malformed", "the body is not a form", hint=f"send {_FORM}")
        return read_form(await read_body(request, limit=service.settings.limits.body_bytes), client=peer.principal)

    async def token(request: Request) -> Response:
        form = await form_of(request)
        request.state.exchange = form.get("grant_type") == EXCHANGE
        asked = read_token_request(form)
        peer, address = peer_of(request), ip_of(request)
        issued = await service.minting.exchange(asked, peer=peer, address=address, request_id=request_id_of(request))
        answer = {
            "access_token": issued.body["token"],
            "issued_token_type": JWT if asked.form == "jwt" else ACCESS_TOKEN,
            "token_type": "Bearer",
            **{name: issued.body[name] for name in ("expires_in", "scope", "jti", "receipt", "request_id")},
        }
        return JSONResponse(answer, headers=_PRIVATE)

    async def introspect(request: Request) -> Response:
        form = await form_of(request)
        if "token" not in form:
            raise RequestError("form-malformed", "the token is missing", hint="token=…")
        return JSONResponse(service.introspecting.answer(form["token"], peer=peer_of(request)), headers=_PRIVATE)

    async def revoke(request: Request) -> Response:
        form = await form_of(request)
        if "token" not in form:
            raise RequestError("form-malformed", "the token is missing", hint="token=…")
        reason = form.get("reason", "revoked by its holder")[:200]
        peer, request_id = peer_of(request), request_id_of(request)
        if await service.revoking.forget(form["token"], reason=reason, peer=peer, request_id=request_id):
            service.withdrawals.changed()
        return Response(status_code=200, headers=_PRIVATE)

    async def metadata(_request: Request) -> Response:
        return JSONResponse(service.oauth_metadata())

    async def jwks(_request: Request) -> Response:
        revocations = service.withdrawals.revocations(service.authority.domain)
        return JSONResponse(service.keys.current().jwks(revocations), headers={"cache-control": f"max-age={JWKS_MAX_AGE}"})

    routes = Routes(service)
    routes.add("POST", "/token", _speaking_oauth(token), "oauth-token")
    routes.add("POST", "/introspect", _speaking_oauth(introspect), "introspect")
    routes.add("POST", "/revoke", _speaking_oauth(revoke), "oauth-revoke")
    routes.add("GET", "/.well-known/oauth-authorization-server", metadata, "oauth-metadata")
    routes.add("GET", "/.well-known/openid-configuration", metadata, "oauth-metadata")
    routes.add("GET", "/.well-known/jwks.json", jwks, "jwks")
    return routes


def _speaking_oauth(handler: Handler) -> Handler:
    """The handler with its refusals as RFC 6749 §5.2 has them. What is our own fault stays a problem document."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except CertauthError as error:
            status = problems.status_of(error)
            if status >= 500 or status == 429:
                raise
            body = error_of(error, exchange=getattr(request.state, "exchange", False))
            return JSONResponse(body, status_code=401 if body["error"] == "invalid_client" else 400, headers=_PRIVATE)

    return answer
