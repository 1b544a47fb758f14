"""Templates: what a claim can put into a name, and what it cannot."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certauth.errors import ConfigError
from certauth.identity.mapping import Template, Use, pseudonym
from certauth.identity.mapping.claims import Claims, Unmappable
from tests.certauth.identity.logins import Login, claims


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("user/{sub}", "user/248289761001"),
        ("user/{claim:/uid}", "user/alice"),
        ("{claim:/uid}-{claim:/nested/n~1m}", "alice-x"),
        ("user/{email|local:lab.example}", "user/alice.b"),
        ("user/{claim:/eppn|local:lab.example}", "user/al"),
        ("user/{sub|hash}", "user/" + pseudonym("https://idp.campus.example", "248289761001")),
        ("constant", "constant"),
    ],
)
def test_what_a_template_makes(template: str, text: str) -> None:
    """Claims in braces, as they are, as a hash, or the part before a named domain."""
    document = {"uid": "alice", "nested": {"n/m": "x"}, "eppn": "al@lab.example"}
    identity = Login(email="alice.b@lab.example", claims=document)
    assert Template.parse(template).fill(Claims(identity)) == text


@pytest.mark.parametrize(
    "template",
    [
        *("", "{", "}", "{{sub}}", "{name}", "{claim:uid}", "{claim:/a}/}", "{sub|upper}", "{email|local}", "{email|local:}"),
        *("{sub|hash|hash}", "x" * 257, "a\nb", "{sub}" * 9, "{claim:/a~2}", "{claim:}", "{SUB}", "{ sub }"),
    ],
)
def test_what_is_no_template_is_refused(template: str) -> None:
    """Braces that name nothing, filters that do not exist, and a local part without the domain it is local to."""
    with pytest.raises(ConfigError) as error:
        Template.parse(template)
    assert (error.value.code, bool(error.value.hint)) == ("rule-invalid", True)


@pytest.mark.parametrize(
    "value",
    [
        *("../admin", "..", ".", "a..b", "a/b", "/", "", "-rf", ".hidden", "a b", "a\x00b", "a\n", "ä", "a%2fb", "a{sub}"),
        *("a\\b", "a" * 129, "\u202eadmin", "a:b", "~root", "$HOME", "a?b", "a#b", "a*"),
    ],
)
def test_a_claim_cannot_leave_its_segment(value: str) -> None:
    """Whatever a provider or its user writes into a claim is one plain segment of a name, or no name at all."""
    with pytest.raises(Unmappable) as error:
        Template.parse("/home/{claim:/uid}/data").fill(claims(uid=value))
    assert "/uid" in error.value.why


@given(st.text(max_size=20))
def test_no_text_leaves_its_segment(value: str) -> None:
    """For any text: it fills one segment, or nothing."""
    try:
        path = Template.parse("/home/{claim:/uid}/data").fill(claims(uid=value))
    except Unmappable:
        return
    assert path.split("/") == ["", "home", value, "data"]
    assert value not in {"", ".", ".."}
    assert value.isascii()


@pytest.mark.parametrize(
    "email", [None, "alice@evil.example", "alice@sub.lab.example", "alice@lab.example.evil", "lab.example"]
)
def test_a_local_part_is_local_to_one_domain(email: str | None) -> None:
    """The alice of one domain is not that of another; without a verified address there is no name at all."""
    identity = Login(email=email, claims={"email": "alice@lab.example"})
    with pytest.raises(Unmappable):
        Template.parse("user/{email|local:lab.example}").fill(Claims(identity))


def test_an_address_with_two_signs_is_read_from_its_end() -> None:
    """``"a@lab.example"@evil.example`` is an address at evil.example."""
    identity = Login(email="a@lab.example@evil.example")
    with pytest.raises(Unmappable, match="not within"):
        Template.parse("{email|local:lab.example}").fill(Claims(identity))


@pytest.mark.parametrize("value", ["Ada Lovelace", "Zoë", "李 明"])
def test_what_people_read_may_be_any_text(value: str) -> None:
    """A display name is not a name of anything."""
    assert Template.parse("{claim:/name}", Use.DISPLAY).fill(claims(name=value)) == value


@pytest.mark.parametrize("value", ["a\nb", "\x1b[2J", "\u202eecila", "x" * 201])
def test_what_people_read_cannot_fool_them(value: str) -> None:
    """No control or direction characters, and no endless names."""
    with pytest.raises(Unmappable, match="shown"):
        Template.parse("{claim:/name}", Use.DISPLAY).fill(claims(name=value))


def test_a_pseudonym_is_of_one_issuer_and_one_claim() -> None:
    """The same subject of another provider, or the same text in another claim, is somebody else; it is stable, and a name."""
    here, there = Login(subject="s"), Login(subject="s", issuer="https://other.example", claims={"id": "s"})
    made = [
        Template.parse("{sub|hash}").fill(Claims(here)),
        Template.parse("{sub|hash}").fill(Claims(there)),
        Template.parse("{claim:/id|hash}").fill(Claims(there)),
    ]
    assert len(set(made)) == 3
    assert made[0] == Template.parse("{sub|hash}").fill(Claims(here))
    assert all(len(name) == 24 and name.isalnum() and name == name.lower() for name in made)
    assert Template.parse("{claim:/odd|hash}").fill(claims(odd="any text / at all\x00")).isalnum()


def test_a_pseudonym_can_be_made_again() -> None:
    """The formula is part of the specification: names must not change with the program."""
    digest = hashlib.sha256(b"https://idp.campus.example\x00248289761001").digest()
    assert pseudonym("https://idp.campus.example", "248289761001") == base64.b32encode(digest[:15]).decode().lower()


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("user/{sub|hash}", "user/{sub|hash}", False),
        ("user/{sub|hash}", "user/x{claim:/a|hash}", False),
        ("user/{claim:/uid}", "user/{claim:/uid}", True),
        ("user/{claim:/uid}", "user/{sub|hash}", True),
        ("user/a-{claim:/uid}", "user/b-{claim:/uid}", False),
        ("user/a-{claim:/uid}", "user/{claim:/uid}", True),
        ("user/{claim:/uid}", "agent/{claim:/uid}", False),
        ("user/{sub|hash}{claim:/x}", "user/{sub|hash}", True),
        ("agent/ci", "agent/ci", True),
        ("agent/ci", "agent/ci-2", False),
        ("agent/ci", "agent/{claim:/x}", True),
        ("agent/ci", "agent/ci-{claim:/x}", False),
        ("agent/ci-x", "agent/ci-{claim:/x}", True),
        ("{claim:/a}", "anything", True),
    ],
)
def test_when_two_templates_could_make_the_same_name(one: str, other: str, meet: bool) -> None:
    """Symmetric, and by what they begin with: a claim can hold whatever a pattern of the other leaves open."""
    first, second = Template.parse(one), Template.parse(other)
    assert (first.meets(second), second.meets(first)) == (meet, meet)
