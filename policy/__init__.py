"""policy: protect an ASGI app: request -> certificate -> token -> decision -> record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policy.caller import Caller
    from policy.middleware import PolicyMiddleware
    from policy.remaining import require_remaining

__all__ = ["Caller", "PolicyMiddleware", "require_remaining"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: programs that only read a policy should not wait for the engine."""
    if name == "PolicyMiddleware":
        from policy.middleware import PolicyMiddleware

        return PolicyMiddleware
    if name == "Caller":
        from policy.caller import Caller

        return Caller
    if name == "require_remaining":
        from policy.remaining import require_remaining

        return require_remaining
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
