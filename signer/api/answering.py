"""What every endpoint does the same way: read the request within bounds, and turn every outcome into an answer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from certauth.bundles import VerifiedPeer
from certauth.enrolment import Address
from certauth.errors import CertauthError, UnavailableError
from policy.caller import STATE, Caller
from policy.request import client_of
from signer import problems
from signer.limits import read_body
from signer.login_code import network_of
from signer.recording import Issued
from signer.schemas import Body, parse
from signer.service import Service

log = structlog.get_logger("signer")

Handler = Callable[[Request], Awaitable[Response]]


class Routes(list[Route]):
    """The paths of one part of the service; ``add`` makes a handler answer every error as a problem document."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    def add(self, method: str, path: str, handler: Handler, operation: str) -> None:
        """Serve ``path``; ``operation`` is its name in logs and metrics."""
        self.append(Route(path, answering(self._service, handler, operation), methods=[method]))


def answering(service: Service, handler: Handler, operation: str) -> Handler:
    """The handler with every error turned into a problem document, counted and logged; no exit is left uncounted."""

    async def answer(request: Request) -> Response:
        started = time.perf_counter()
        try:
            response = await handler(request)
        except CertauthError as error:
            return _say(service, request, operation, error)
        except Exception:  # the last resort: whatever went wrong, nothing was released
            log.exception("request.failed", operation=operation, request_id=request_id_of(request))
            return _say(
                service,
                request,
                operation,
                UnavailableError(
                    "internal",
                    "the service failed; nothing was granted",
                    hint="tell the facility's administrator the request id",
                ),
            )
        service.metrics.observe(operation, "done", "")
        if request.method == "POST":
            service.metrics.issue_seconds.labels(operation).observe(time.perf_counter() - started)
            log.info("request.done", operation=operation, request_id=request_id_of(request))
        return response

    return answer


def _say(service: Service, request: Request, operation: str, error: CertauthError) -> Response:
    outcome = "refused" if problems.status_of(error) < 500 else "failed"
    service.metrics.observe(operation, outcome, error.code)
    log.info("request.refused", operation=operation, code=error.code, request_id=request_id_of(request))
    return problems.answer(error, request_id=request_id_of(request))


async def body_of(service: Service, request: Request, kind: type[Body]) -> Body:
    """The request's body as ``kind``; raises as ``read_body`` and ``parse`` do."""
    return parse(kind, await read_body(request, limit=service.settings.limits.body_bytes))


def created(issued: Issued) -> Response:
    """201, with what was issued, and never kept by a cache."""
    return JSONResponse(issued.body, status_code=201, headers={"cache-control": "no-store"})


def _caller(request: Request) -> Caller:
    caller = request.scope["state"][STATE]
    if not isinstance(caller, Caller):
        raise UnavailableError(
            "internal", "the service's own door is not in place", hint="tell the facility's administrator the request id"
        )
    return caller


def peer_of(request: Request) -> VerifiedPeer:
    """The certificate that the door verified."""
    peer = _caller(request).peer
    if peer is None:  # the door lets nobody come here without one; if it ever did, this is where it ends
        raise UnavailableError(
            "internal", "no certificate reached the service", hint="tell the facility's administrator the request id"
        )
    return peer


def request_id_of(request: Request) -> str:
    """The id under which the door recorded this request."""
    return _caller(request).request_id


def ip_of(request: Request) -> Address | None:
    """The client's address; ``None`` for a client on this machine's socket."""
    address, _ = client_of(request.scope)
    return None if address is None else ip_address(address)


def address_of(request: Request) -> str:
    """Where the request comes from, as the rate limiter counts it."""
    address, uid = client_of(request.scope)
    return network_of(address) if address else f"uid {uid}"
