"""Entitlements as URNs: AARC-G069 memberships, AARC-G027 capabilities, and texts that are neither."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certauth.identity.mapping.entitlements import Capability, Membership, normal_namespace, parse_capability, parse_membership

NOT_A_MEMBERSHIP = [
    "",
    "staff",
    "urn:mace:dir:entitlement:common-lib-terms",
    "https://example.org/group:x",
    "urn:group:x",
    "urn:geant:group:x",
    "urn:geant:lab.example:group:",
    "urn:geant:lab.example:group",
    "urn:geant:lab.example:group:a::b",
    "urn:geant::group:a",
    "urn:geant:lab.example:group:role=x",
    "urn:geant:lab.example:group:a:role=",
    "urn:geant:lab.example:group:a:role=x:role=y",
    "urn:geant:lab.example:group:a:role=x:b",
    "urn:geant:lab.example:group:a#",
    "urn:geant:lab.example:group:a#x#y",
    "urn:geant:lab.example:group:a#x y",
    "urn:geant:lab.example:group:a b",
    "urn:geant:lab.example:group:ä",
    "urn:geant:lab.example:group:a%2",
    "urn:geant:lab.example:group:a%zz",
    "urn:geant:lab.example:group:a?+x",
    "urn:geant:lab.example:group:a\n",
    " urn:geant:lab.example:group:a",
    "urn:geant:lab.example:res:a",
    "urn:geant:lab.example:res:a:group:b",
]


@pytest.mark.parametrize(
    ("text", "membership"),
    [
        # The forms of AARC-G069 §2 and G002, and what EGI Check-in, Unity and Perun send.
        ("urn:geant:h-df.de:group:aai-admin", Membership("urn:geant:h-df.de", "aai-admin", None, None)),
        (
            "urn:geant:h-df.de:group:aai-admin:role=member#backupserver.used.for.developmt.de",
            Membership("urn:geant:h-df.de", "aai-admin", "member", "backupserver.used.for.developmt.de"),
        ),
        (
            "urn:mace:egi.eu:group:vo.example.org:role=vm_operator#aai.egi.eu",
            Membership("urn:mace:egi.eu", "vo.example.org", "vm_operator", "aai.egi.eu"),
        ),
        ("urn:geant:lab.example:sub:group:a:b:c#x", Membership("urn:geant:lab.example:sub", "a:b:c", None, "x")),
        (
            "UrN:NiD:ExAmPlE.oRg:group:Minun%20Ryhm%c3%a4ni",
            Membership("urn:nid:example.org", "Minun%20Ryhm%C3%A4ni", None, None),
        ),
        ("urn:geant:lab.example:group:group:res:act", Membership("urn:geant:lab.example", "group:res:act", None, None)),
        ("urn:geant:lab.example:group:a:role=b=c", Membership("urn:geant:lab.example", "a", "b=c", None)),
    ],
)
def test_memberships(text: str, membership: Membership) -> None:
    """Namespace without case, percent-encodings with upper-case digits, the rest to the letter."""
    assert parse_membership(text) == membership


@pytest.mark.parametrize("text", NOT_A_MEMBERSHIP)
def test_what_is_no_membership(text: str) -> None:
    """Other entitlements, and whatever is almost one."""
    assert parse_membership(text) is None


@pytest.mark.parametrize(("role", "member"), [(None, True), ("member", True), ("Member", False), ("manager", False)])
def test_only_members_are_members(role: str | None, member: bool) -> None:
    """Whoever holds another role in a group is told apart from its members."""
    assert Membership("urn:a:b", "g", role, None).is_member is member


@pytest.mark.parametrize(
    ("text", "capability"),
    [
        ("urn:geant:lab.example:res:hpc", Capability("urn:geant:lab.example", "hpc", (), None)),
        ("urn:geant:lab.example:res:a:b:act:x,y#z", Capability("urn:geant:lab.example", "a:b", ("x", "y"), "z")),
        ("urn:GEANT:Lab.example:res:hpc%2a", Capability("urn:geant:lab.example", "hpc%2A", (), None)),
        ("urn:geant:lab.example:res:act", None),
        ("urn:geant:lab.example:res:act:x", None),
        ("urn:geant:lab.example:res:hpc:act", None),
        ("urn:geant:lab.example:res:hpc:act:x:y", None),
        ("urn:geant:lab.example:res:hpc:act:x,", None),
        ("urn:geant:lab.example:res:hpc:act:x,,y", None),
        ("urn:geant:lab.example:group:hpc", None),
        ("urn:geant:lab.example:res", None),
    ],
)  # fmt: skip
def test_capabilities(text: str, capability: Capability | None) -> None:
    """A resource with its parents, and the actions; without actions, all of them."""
    assert parse_capability(text) == capability


@pytest.mark.parametrize(
    "text", ["urn", "urn:geant", "mace:geant:x", "urn:geant:x:group:y", "urn:geant:res", "urn:geant:", "urn:ge ant:x", ""]
)
def test_what_is_no_namespace(text: str) -> None:
    """At least a namespace id and a delegated namespace, and no word that ends it."""
    assert normal_namespace(text) is None
    assert normal_namespace("URN:Geant:X.example") == "urn:geant:x.example"


PIECES = st.sampled_from(["urn", "a", "group", "res", "act", "role=x", "", "b#c", "%41", ","])


@given(st.text(max_size=60) | st.lists(PIECES, max_size=9).map(lambda pieces: ":".join(["urn", "a", "b", *pieces])))
def test_any_text_is_read_or_left(text: str) -> None:
    """Nothing raises, and what is read can be written down again as the same thing."""
    membership, capability = parse_membership(text), parse_capability(text)
    assert membership is None or capability is None
    if membership is not None:
        role = "" if membership.role is None else f":role={membership.role}"
        authority = f"#{membership.authority}" if membership.authority else ""
        again = f"{membership.namespace}:group:{membership.group}{role}{authority}"
        assert parse_membership(again) == membership
