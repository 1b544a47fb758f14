"""The acts: a certificate for a proof, another for a certificate, a token for a certificate, and taking them back."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from signer.api.answering import Routes, address_of, body_of, created, ip_of, peer_of, request_id_of
from signer.linking import LinkBody
from signer.schemas import CertificateBody, RenewalBody, RevocationBody, TokenBody
from signer.service import Service


def issuing_routes(service: Service) -> list[Route]:
    """``POST`` to certificates, renewals, tokens and revocations."""

    async def certificates(request: Request) -> Response:
        service.limiter.spend(address_of(request), at=time.monotonic())
        body = await body_of(service, request, CertificateBody)
        request_id = body.request_id or request_id_of(request)
        return created(await service.issuing.certificate(body, address=ip_of(request), request_id=request_id))

    async def renewals(request: Request) -> Response:
        service.limiter.spend(str(peer_of(request).principal), at=time.monotonic())
        body = await body_of(service, request, RenewalBody)
        request_id = body.request_id or request_id_of(request)
        peer, address = peer_of(request), ip_of(request)
        return created(await service.issuing.renewal(body, peer=peer, address=address, request_id=request_id))

    async def tokens(request: Request) -> Response:
        service.limiter.spend(str(peer_of(request).principal), at=time.monotonic())
        body = await body_of(service, request, TokenBody)
        request_id = body.request_id or request_id_of(request)
        peer, address = peer_of(request), ip_of(request)
        return created(await service.minting.token(body, peer=peer, address=address, request_id=request_id))

    async def revoke(request: Request) -> Response:
        service.limiter.spend(str(peer_of(request).principal), at=time.monotonic())
        body = await body_of(service, request, RevocationBody)
        request_id = body.request_id or request_id_of(request)
        issued = await service.revoking.revoke(body, peer=peer_of(request), request_id=request_id)
        service.withdrawals.changed()
        return created(issued)

    async def links(request: Request) -> Response:
        service.limiter.spend(str(peer_of(request).principal), at=time.monotonic())
        body = await body_of(service, request, LinkBody)
        request_id = body.request_id or request_id_of(request)
        peer, address = peer_of(request), ip_of(request)
        return created(await service.linking.link(body, peer=peer, address=address, request_id=request_id))

    routes = Routes(service)
    routes.add("POST", "/v1/certificates", certificates, "certificate")
    routes.add("POST", "/v1/renewals", renewals, "renewal")
    routes.add("POST", "/v1/links", links, "link")
    routes.add("POST", "/v1/tokens", tokens, "token")
    routes.add("POST", "/v1/revocations", revoke, "revoke")
    return routes
