"""``certauth policy``: check the rules of a service, see why a request was denied, protect an app without touching it."""

from __future__ import annotations

from certauth.cli.output import Mount
from certauth.cli.output import group as make_group

group = make_group(
    "policy",
    help="Protect a service: check its rules, explain its decisions, run it.",
    mounts={
        "check": Mount(target="policy.cli.check:check", help="Check policy.toml and trust.toml, and run the tests in them."),
        "explain": Mount(target="policy.cli.explain:explain", help="Say why a request was permitted or denied."),
        "run": Mount(target="policy.cli.run:run", help="Serve an unmodified ASGI app with mutual TLS behind its policy."),
    },
)
