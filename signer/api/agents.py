"""Agents over HTTP: a person makes, lists and stops the agents that work for them. Who asks is the certificate's holder."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from signer.agents_schema import AgentBody, StopBody
from signer.api.answering import Routes, body_of, created, ip_of, peer_of, request_id_of
from signer.service import Service


def agent_routes(service: Service) -> list[Route]:
    """``/v1/agents``, and ``/v1/agents/{name}/stop``."""

    async def create(request: Request) -> Response:
        service.limiter.spend(str(peer_of(request).principal), at=time.monotonic())
        body = await body_of(service, request, AgentBody)
        request_id = body.request_id or request_id_of(request)
        return created(await service.agents.create(body, peer=peer_of(request), address=ip_of(request), request_id=request_id))

    async def list_(request: Request) -> Response:
        service.limiter.spend(str(peer_of(request).principal), at=time.monotonic())
        return JSONResponse(service.agents.list(peer_of(request)), headers={"cache-control": "no-store"})

    async def stop(request: Request) -> Response:
        service.limiter.spend(str(peer_of(request).principal), at=time.monotonic())
        body = await body_of(service, request, StopBody)
        request_id = body.request_id or request_id_of(request)
        name: str = request.path_params["name"]
        stopped = await service.agents.stop(name, body, peer=peer_of(request), request_id=request_id)
        if stopped is None:
            return JSONResponse({"state": "stopped", "request_id": request_id}, headers={"cache-control": "no-store"})
        service.withdrawals.changed()
        return created(stopped)

    routes = Routes(service)
    routes.add("POST", "/v1/agents", create, "agent-create")
    routes.add("GET", "/v1/agents", list_, "agent-list")
    routes.add("POST", "/v1/agents/{name}/stop", stop, "agent-stop")
    return routes
