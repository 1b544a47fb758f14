"""What somebody is enrolled for, as options of a command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from certauth.clock import parse_duration
from certauth.enrolment import EnrolledRight, Terms
from certauth.errors import RequestError, UsageError
from certauth.names import label
from certauth.requests import Right

F = TypeVar("F", bound=Callable[..., Any])

RIGHT_FORM = "SERVICE:OPERATION[,OPERATION]:PATH"
MAX_NAMES = 64
_LONGEST = 128

_OPTIONS = (
    click.option("--right", "rights", multiple=True, metavar=RIGHT_FORM, help="A right; a path ending in / is a subtree."),
    click.option("--group", "groups", multiple=True, help="A group to be in."),
    click.option("--role", "roles", multiple=True, help="A role to have."),
    click.option("--project", "projects", multiple=True, help="A project to work for."),
    click.option("--assurance", type=click.IntRange(1, 3), default=3, show_default=True, help="Ceiling of assurance."),
    click.option("--max-lifetime", help="Cap on certificates and tokens, e.g. 8h."),
)


def terms_options(function: F) -> F:
    """``--right``, ``--group``, ``--role``, ``--project``, ``--assurance``, ``--max-lifetime``; read with ``terms_of``."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def terms_of(given: dict[str, Any]) -> Terms:
    """The terms among a command's parameters, which are taken out of ``given``; ``UsageError`` for what means nothing."""
    lifetime = given.pop("max_lifetime")
    return Terms(
        groups=names(given.pop("groups"), "a group"),
        roles=names(given.pop("roles"), "a role"),
        projects=names(given.pop("projects"), "a project"),
        rights=rights(given.pop("rights")),
        assurance=given.pop("assurance"),
        max_lifetime=parse_duration(lifetime) if lifetime else None,
    )


def names(texts: tuple[str, ...], what: str) -> tuple[str, ...]:
    """Names of groups, roles or projects: printable, without blanks at their ends, none twice, not too many."""
    for text in texts:
        if not 0 < len(text) <= _LONGEST or not text.isprintable() or text != text.strip():
            raise UsageError("bad-name", f"{text[:80]!r} cannot be {what}", hint=f"1 to {_LONGEST} printable characters")
    distinct = tuple(dict.fromkeys(texts))
    if len(distinct) > MAX_NAMES:
        raise UsageError("bad-name", f"{len(distinct)} names are too many for {what}", hint=f"at most {MAX_NAMES}")
    return distinct


def rights(texts: tuple[str, ...]) -> tuple[EnrolledRight, ...]:
    """Rights as ``RIGHT_FORM`` spells them."""
    found = tuple(right for text in texts for right in _rights(text))
    if len(found) > MAX_NAMES:
        raise UsageError("bad-right", f"{len(found)} rights are too many", hint=f"at most {MAX_NAMES}; a group can hold more")
    return found


def _rights(text: str) -> list[EnrolledRight]:
    service, _, rest = text.partition(":")
    operations, _, path = rest.partition(":")
    if not path:
        raise UsageError("bad-right", f"{text[:80]!r} is not a right", hint=f"write {RIGHT_FORM}")
    made = [Right.make(operation, path) for operation in operations.split(",")]
    return [EnrolledRight(label(service, "a service"), right.operation, right.path) for right in made]


def email(text: str | None) -> str | None:
    """An e-mail address, in ASCII: addresses are compared without regard to case, which only ASCII settles."""
    if text is None:
        return None
    local, at, domain = text.rpartition("@")
    fine = text.isascii() and text.isprintable() and " " not in text and len(text) <= 254  # RFC 5321 §4.5.3.1.3
    if not (fine and local and at and domain):
        raise RequestError("bad-email", f"{text[:80]!a} is not an e-mail address", hint="write name@host, in ASCII")
    return text
