"""The HTTP interface: each endpoint reads a request, lets ``issuing`` act, and says what came of it.

Who asks was settled before a handler runs: the service's own ``PolicyMiddleware`` stands in front (``policy.toml``).
"""

from __future__ import annotations

from starlette.routing import Route

from signer.api.agents import agent_routes
from signer.api.documents import document_routes
from signer.api.issuing import issuing_routes
from signer.api.oauth import oauth_routes
from signer.login_api import login_routes
from signer.login_pages import Facility
from signer.service import Service


def routes(service: Service) -> list[Route]:
    """Every path of the service, each once; the rules of ``policy.toml`` name the same ones."""
    logins = login_routes(
        service.logins,
        facility=Facility(
            name=service.settings.trust_domain, certificate_lifetime=service.settings.limits.certificate_lifetime
        ),
        public_url=service.settings.public_url,
        limiter=service.limiter,
        body_limit=service.settings.limits.body_bytes,
        observe=service.metrics.observe,
    )
    return [*issuing_routes(service), *agent_routes(service), *oauth_routes(service), *logins, *document_routes(service)]
