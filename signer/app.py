"""The ASGI application: the HTTP interface behind the service's own door."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from certauth.errors import RequestError
from policy.caller import STATE
from policy.middleware import PolicyMiddleware
from signer.api import routes
from signer.problems import answer
from signer.service import Service


def create_app(service: Service) -> PolicyMiddleware:
    """The application for a started service; its lifespan does not close the service, whoever started it does."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await service.key_source.warm()
        try:
            yield
        finally:
            await service.introspection.aclose()
            await service.key_source.aclose()

    app = Starlette(routes=routes(service), lifespan=lifespan, exception_handlers={404: _not_found})
    return PolicyMiddleware(app, policy=service.policy, trust=service.trust, decisions=service.decisions, clock=service.clock)


async def _not_found(request: Request, _error: Exception) -> Response:
    error = RequestError(
        "not-found", "there is nothing here", hint="compare the address with the reference of the HTTP interface"
    )
    return answer(error, request_id=request.scope["state"][STATE].request_id)
