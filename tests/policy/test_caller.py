"""``policy.caller``: what the app is told, and what it is not."""

from __future__ import annotations

from policy.caller import Caller, scope_for_app
from policy.request import read_headers


def caller(**changes: object) -> Caller:
    """Nobody, with changes."""
    values: dict[str, object] = dict.fromkeys(("principal", "certificate", "user", "expires_at", "peer"))
    values |= {"request_id": "abcdefgh", "assurance": 0, "groups": (), "roles": (), "projects": ()}
    values |= {"members": (), "handed_over": ()}
    values |= {"operation": "read", "path": "/", **changes}
    return Caller(**{name: values[name] for name in Caller.__dataclass_fields__})  # type: ignore[arg-type]  # a shorthand


def test_nobody_is_not_authenticated() -> None:
    """A public route's caller has no name and no scopes."""
    nobody = caller()
    assert nobody.is_authenticated is False
    assert (nobody.identity, nobody.display_name, nobody.scopes) == ("", "", [])


def test_only_bearer_credentials_are_ours_to_hide() -> None:
    """Every spelling of the token is removed; what merely looks similar stays."""
    headers = [
        (b"Authorization", b" bEaReR x"),
        (b"authorization", b"Bearerx y"),
        (b"Biscuit", b"z"),
        (b"biscuits", b"yes"),
        (b"Sec-WebSocket-Protocol", b"certauth.bearer.t , chat,v2"),
        (b"sec-websocket-protocol", b"certauth.bearer.t"),
    ]
    scope = {"type": "websocket", "headers": headers, "subprotocols": ["certauth.bearer.t", "chat", "v2"], "state": {"a": 1}}
    inner = scope_for_app(scope, read_headers(headers), caller(), hide_token=True)
    assert inner["headers"] == [
        (b"authorization", b"Bearerx y"),
        (b"biscuits", b"yes"),
        (b"Sec-WebSocket-Protocol", b"chat,v2"),
    ]
    assert inner["subprotocols"] == ["chat", "v2"]
    assert (inner["state"]["a"], inner["state"]["certauth"]) == (1, inner["user"])
    assert scope["headers"] is headers, "the server's own scope is left as it was"
    assert "user" not in scope
