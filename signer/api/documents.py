"""What anybody may read: who this facility is, its keys, what was revoked, and how the service is."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from certauth import __version__
from certauth.errors import Refused
from signer.api.answering import Routes, address_of, ip_of
from signer.health import readiness
from signer.service import Service


def document_routes(service: Service) -> list[Route]:
    """Metadata, bundle, feed, checkpoint, health and metrics."""

    async def revocations(_request: Request) -> Response:
        # Not limited: it is a cached document, and whoever shares an address with a service must not be able to starve it.
        return Response(service.withdrawals.feed(), media_type="application/json", headers={"cache-control": "no-store"})

    async def checkpoint(_request: Request) -> Response:
        return PlainTextResponse(service.checkpoint(), headers={"cache-control": "no-store"})

    async def metadata(_request: Request) -> Response:
        return JSONResponse(service.metadata())

    async def bundle(_request: Request) -> Response:
        return Response(service.keys.current().bundle_bytes, media_type="application/json")

    async def livez(_request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": __version__})

    async def readyz(_request: Request) -> Response:
        report = readiness(service)
        return JSONResponse(report.body(), status_code=200 if report.ready else 503)

    async def metrics(request: Request) -> Response:
        service.limiter.spend(address_of(request), at=time.monotonic())
        if service.settings.metrics == "loopback" and not _is_here(request):
            raise Refused(
                "metrics-elsewhere",
                "the metrics of this signer are for programs on its own machine",
                hint='read them there, or set metrics = "all" in signer.toml',
            )
        return PlainTextResponse(service.exposition(), media_type="text/plain; version=0.0.4")

    routes = Routes(service)
    routes.add("GET", "/v1/revocations", revocations, "feed")
    routes.add("GET", "/v1/log/checkpoint", checkpoint, "checkpoint")
    routes.add("GET", "/.well-known/certauth", metadata, "metadata")
    routes.add("GET", "/.well-known/certauth/bundle", bundle, "bundle")
    routes.add("GET", "/livez", livez, "livez")
    routes.add("GET", "/readyz", readyz, "readyz")
    if service.settings.metrics != "off":
        routes.add("GET", "/metrics", metrics, "metrics")
    return routes


def _is_here(request: Request) -> bool:
    """Whether a program on this machine asks, by its address or over a socket file."""
    address = ip_of(request)
    mapped = None if address is None else getattr(address, "ipv4_mapped", None)  # as a dual-stack listener sees IPv4
    return address is None or (mapped or address).is_loopback
