"""Entitlements of research federations: group membership (AARC-G069) and resource capabilities (AARC-G027), as URNs.

    urn:<nid>:<delegated>[:<sub>…]:group:<group>[:<subgroup>…][:role=<role>][#<authority>]
    urn:<nid>:<delegated>[:<sub>…]:res:<resource>[:<child>…][:act:<action>[,<action>…]][#<authority>]

The namespace is compared without case, percent-encodings with upper-case digits (G069 §2, RFC 8141 §3); nothing is decoded, so
that two names are equal iff their text is. What says ``group`` or ``res`` first says where the namespace ends. A child group
does not imply its parent: who wants both is a member of both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_COMPONENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=@/-]|%[0-9A-Fa-f]{2}){1,255}")
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
_AUTHORITY = re.compile(r"[A-Za-z0-9._:/-]{1,255}")
_ROLE = "role="


@dataclass(frozen=True, slots=True)
class Membership:
    """Of ``group``, components joined by colons; ``role`` is ``None`` where none is named."""

    namespace: str
    group: str
    role: str | None
    authority: str | None

    @property
    def is_member(self) -> bool:
        """Whether it makes somebody a member: no role, or the role ``member``. Any other role is only that role."""
        return self.role in (None, "member")


@dataclass(frozen=True, slots=True)
class Capability:
    """To do ``actions`` (all there are, if empty) with ``resource``, components joined by colons."""

    namespace: str
    resource: str
    actions: tuple[str, ...]
    authority: str | None


def parse_membership(text: str) -> Membership | None:
    """The group membership that ``text`` states; ``None`` if it is another kind of entitlement."""
    split = _split(text, "group")
    if split is None:
        return None
    namespace, components, authority = split
    role = components.pop().removeprefix(_ROLE) if components[-1].startswith(_ROLE) else None
    if not components or role == "" or any(component.startswith(_ROLE) for component in components):
        return None
    return Membership(namespace, ":".join(components), role, authority)


def parse_capability(text: str) -> Capability | None:
    """The capability that ``text`` states; ``None`` if it is another kind of entitlement."""
    split = _split(text, "res")
    if split is None:
        return None
    namespace, components, authority = split
    if "act" not in components:
        return Capability(namespace, ":".join(components), (), authority)
    place = components.index("act")
    actions = tuple(components[-1].split(","))
    if place == 0 or place != len(components) - 2 or "" in actions:
        return None
    return Capability(namespace, ":".join(components[:place]), actions, authority)


def normal_namespace(text: str) -> str | None:
    """A namespace as it is compared, ``urn:geant:lab.example``; ``None`` if ``text`` is none."""
    components = text.lower().split(":")
    plain = components[0] == "urn" and len(components) >= 3 and all(_COMPONENT.fullmatch(part) for part in components)
    return ":".join(components) if plain and not {"group", "res"} & set(components[2:]) else None


def is_authority(text: str) -> bool:
    """Whether ``text`` can follow the ``#``."""
    return bool(_AUTHORITY.fullmatch(text))


def _split(text: str, word: str) -> tuple[str, list[str], str | None] | None:
    """Namespace, components after ``word`` (at least one), authority."""
    urn, hash_sign, authority = text.partition("#")
    components = urn.split(":")
    place = next((index for index, component in enumerate(components) if index >= 3 and component in {"group", "res"}), None)
    if place is None or components[place] != word or not components[place + 1 :]:
        return None
    namespace = normal_namespace(":".join(components[:place]))
    names = components[place + 1 :]
    if (
        namespace is None
        or not all(_COMPONENT.fullmatch(name) for name in names)
        or (hash_sign and not is_authority(authority))
    ):
        return None
    return namespace, [_ENCODED.sub(lambda found: found[0].upper(), name) for name in names], authority or None
