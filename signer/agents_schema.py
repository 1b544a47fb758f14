"""Request bodies about agents, strictly parsed. Nothing here is trusted beyond its shape."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from signer.schemas import RequestId, Seconds

_MAX_RIGHTS = 64
_MAX_NETWORKS = 16


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AgentRight(_Body):
    """One operation on one path (exact) or subtree (trailing slash) at one service."""

    service: Annotated[str, Field(max_length=64)]
    operation: Annotated[str, Field(max_length=64)]
    path: Annotated[str, Field(max_length=512)]


class AgentBody(_Body):
    """``POST /v1/agents``. Either ``rights``, or ``everything_at`` some services or, with ``*``, at all of them."""

    name: Annotated[str, Field(max_length=64)]
    csr: Annotated[str, Field(max_length=32_768)]
    """A request of the agent's own key, which proves its possession and with which the agent will prove itself."""
    rights: Annotated[tuple[AgentRight, ...], Field(min_length=1, max_length=_MAX_RIGHTS)] | None = None
    everything_at: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(min_length=1, max_length=16)] | None = None
    networks: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=_MAX_NETWORKS)] = ()
    lifetime: Seconds
    request_id: RequestId | None = None

    @model_validator(mode="after")
    def _one_wish(self) -> Self:
        if (self.rights is None) is (self.everything_at is None):
            raise ValueError("rights or everything_at")
        return self


class StopBody(_Body):
    """``POST /v1/agents/{name}/stop``."""

    reason: Annotated[str, Field(min_length=1, max_length=200)]
    request_id: RequestId | None = None
