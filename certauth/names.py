"""Names: trust domains and principals, as SPIFFE writes them.

A principal is ``spiffe://<trust domain>/<kind>/<id>`` (SPIFFE-ID §2). The grammar here is a strict subset: lower-case
domain, one of four kinds, one path segment for the id, no percent-encoding, no dots that climb. So a name from outside can
be used as a file name, a log field or a Datalog string without a second thought, and two names are equal iff their text is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from certauth.errors import RequestError

_DOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,127}")
MAX_NAME = 128
"""Characters of a group, role or project."""
_LABEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Kind(StrEnum):
    """What a principal is."""

    USER = "user"
    SERVICE = "service"
    AGENT = "agent"
    HOST = "host"


_KINDS = frozenset(Kind)


@dataclass(frozen=True, slots=True, order=True)
class TrustDomain:
    """One facility's namespace, e.g. ``als.example``."""

    name: str

    @classmethod
    def parse(cls, text: str) -> TrustDomain:
        """Raise ``RequestError`` (``bad-name``) unless ``text`` is a lower-case DNS-like name."""
        if not _DOMAIN.fullmatch(text):
            raise RequestError("bad-name", f"{text[:80]!r} is not a trust domain", hint="use a name like als.example")
        return cls(text)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, order=True)
class Principal:
    """Who: a user, service, agent or host of one trust domain."""

    domain: TrustDomain
    kind: Kind
    id: str

    @classmethod
    def make(cls, domain: TrustDomain, kind: Kind, id_: str) -> Principal:
        """Raise ``RequestError`` (``bad-name``) unless ``id_`` is one safe path segment."""
        if not _ID.fullmatch(id_) or ".." in id_:
            raise RequestError(
                "bad-name",
                f"{id_[:80]!r} cannot be the id of a {kind}",
                hint="use letters, digits and . _ @ + -, at most 128, not starting with a dot",
            )
        return cls(domain, kind, id_)

    @classmethod
    def parse(cls, uri: str) -> Principal:
        """Raise ``RequestError`` (``bad-name``) unless ``uri`` is ``spiffe://<domain>/<kind>/<id>``."""
        scheme, _, rest = uri.partition("://")
        domain, _, path = rest.partition("/")
        kind, _, id_ = path.partition("/")
        if scheme != "spiffe" or kind not in _KINDS:
            raise RequestError("bad-name", f"{uri[:120]!r} is not a principal", hint="spiffe://<trust domain>/user/<id>")
        return cls.make(TrustDomain.parse(domain), Kind(kind), id_)

    def __str__(self) -> str:
        return f"spiffe://{self.domain}/{self.kind}/{self.id}"


def label(text: str, what: str) -> str:
    """Return ``text`` if it is a safe lower-case label (service, project, profile or file name); else raise ``bad-name``."""
    if not _LABEL.fullmatch(text) or ".." in text:
        raise RequestError("bad-name", f"{text[:80]!r} cannot be {what}", hint="use a-z, 0-9 and . _ -, at most 64")
    return text


def is_name(text: str) -> bool:
    """Whether ``text`` can be a group, role or project: 1 to 128 printable characters."""
    return 0 < len(text) <= MAX_NAME and text.isprintable()
