"""JSON pointers into claims, and the three answers: values, missing, unreadable."""

from __future__ import annotations

import math
from types import MappingProxyType

import pytest

from certauth.errors import ConfigError
from certauth.identity.mapping.claims import ClaimMissing, Claims, ClaimUnreadable, Pointer, Scalar, shown, typed
from tests.certauth.identity.logins import Login, claims, login

# RFC 6901 §5, but for the whole document, which is no claim.
RFC_6901 = {"foo": ["bar", "baz"], "": 7, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, 'k"l': 6, " ": 8, "m~n": 9}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/foo", ("bar", "baz")),
        ("/foo/0", ("bar",)),
        ("/", (7,)),
        ("/a~1b", (1,)),
        ("/c%d", (2,)),
        ("/e^f", (3,)),
        ("/g|h", (4,)),
        ("/i\\j", (5,)),
        ('/k"l', (6,)),
        ("/ ", (8,)),
        ("/m~0n", (9,)),
    ],
)
def test_the_examples_of_rfc_6901(pointer: str, value: tuple[Scalar, ...]) -> None:
    """Every pointer of the standard's table selects what the standard says."""
    assert claims(**RFC_6901).values(Pointer.parse(pointer)) == value


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/realm_access/roles", ("a", "b")),
        ("/https:~1~1idp.example~1groups", ("x",)),
        ("/kubernetes.io/pod/name", ("p",)),
        ("/~01", ("tilde one",)),
        ("/rows/1/0", ("deep",)),
    ],
)
def test_keys_may_hold_any_character(pointer: str, value: tuple[Scalar, ...]) -> None:
    """Slashes, dots, colons and tildes in names are no obstacle; ``~01`` is ``~1`` and not a slash."""
    document = {
        "realm_access": {"roles": ["a", "b"]},
        "https://idp.example/groups": ["x"],
        "kubernetes.io": MappingProxyType({"pod": {"name": "p"}}),
        "~1": "tilde one",
        "rows": [["no"], ("deep",)],
    }
    assert claims(**document).values(Pointer.parse(pointer)) == value


@pytest.mark.parametrize("text", ["", "acr", "#/acr", "/a~", "/a~2", "/x" * 9, "/" + "x" * 256, "/a\nb", "/a\u202eb", "acr/x"])
def test_what_is_no_pointer_is_refused(text: str) -> None:
    """A bare name, an unknown escape, the whole document, and what nobody can read or bound."""
    with pytest.raises(ConfigError) as error:
        Pointer.parse(text)
    assert (error.value.code, bool(error.value.hint)) == ("rule-invalid", True)


@pytest.mark.parametrize("value", [None, "", [], {}, ()])
def test_what_says_nothing_is_missing(value: object) -> None:
    """A claim that a provider sends empty says as much as one that it leaves out."""
    with pytest.raises(ClaimMissing, match="/groups"):
        claims(groups=value).values(Pointer.parse("/groups"))


@pytest.mark.parametrize("pointer", ["/a/b", "/list/2", "/list/01", "/list/-", "/list/-1", "/list/x", "/text/0", "/list/99999"])
def test_what_is_not_there_is_missing(pointer: str) -> None:
    """Nothing is found inside a text, behind the end of a list, or at an index written in another way."""
    with pytest.raises(ClaimMissing):
        claims(a={}, list=["x", "y"], text="x").find(Pointer.parse(pointer))


@pytest.mark.parametrize("value", [False, 0, 0.0, "x", ["x"], [0], ["x", 1, True]])
def test_what_says_something_is_a_list(value: object) -> None:
    """A scalar is a list of one, and false and zero are values."""
    assert claims(c=value).values(Pointer.parse("/c")) == (tuple(value) if isinstance(value, list) else (value,))


@pytest.mark.parametrize("value", [{"a": 1}, [{"a": 1}], [["x"]], [None], "x" * 4097, ["y", "x" * 4097]])
def test_what_is_no_value_is_unreadable(value: object) -> None:
    """Objects, lists of lists and endless texts are refused, not flattened."""
    with pytest.raises(ClaimUnreadable, match="/c"):
        claims(c=value).values(Pointer.parse("/c"))


def test_a_long_list_is_refused_and_never_cut() -> None:
    """At the cap it is read whole; one more and nothing of it is read."""
    pointer = Pointer.parse("/groups")
    assert len(claims(groups=[f"g{n}" for n in range(200)]).values(pointer)) == 200
    with pytest.raises(ClaimUnreadable, match="201 values, and at most 200") as error:
        claims(groups=[f"g{n}" for n in range(201)]).values(pointer)
    assert "max_values" in str(error.value.hint)
    with pytest.raises(ClaimUnreadable):
        claims(1, groups=["a", "b"]).values(pointer)


@pytest.mark.parametrize(
    "overage",
    [
        {"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph.example"}}},
        {"_claim_names": {"groups": "src1"}, "groups": ["some"]},
        {"_claim_names": ["groups"]},
        {"hasgroups": True},
        {"hasgroups": "true"},
        {"hasgroups": True, "groups": ["some"]},
    ],
)
def test_groups_that_the_provider_left_out_are_not_missing(overage: dict[str, object]) -> None:
    """Entra's overage: there are groups, they are not here, and "none" would be the wrong answer."""
    with pytest.raises(ClaimUnreadable, match="left /groups out") as error:
        claims(**overage).find(Pointer.parse("/groups"))
    assert "assigned to this client" in str(error.value.hint)


def test_overage_of_one_claim_says_nothing_about_another() -> None:
    """Only what the provider put elsewhere is unreadable."""
    document = {"_claim_names": {"address": "src1"}, "hasgroups": False, "groups": ["g"], "acr": "x"}
    assert claims(**document).texts(Pointer.parse("/groups")) == ("g",)
    assert claims(**(document | {"hasgroups": True})).one(Pointer.parse("/acr")) == "x"
    assert claims(_claim_names=7, groups=["g"]).texts(Pointer.parse("/groups")) == ("g",)


def test_an_unverified_address_is_no_claim() -> None:
    """``/email`` is what the verifier took for verified, whatever the document holds; otherwise it is missing and says why."""
    pointer = Pointer.parse("/email")
    assert Claims(Login(email="a@x.example", claims={"email": "b@y.example"})).one(pointer) == "a@x.example"
    with pytest.raises(ClaimMissing, match="verified"):
        claims(email="root@campus.example", email_verified=False).one(pointer)
    with pytest.raises(ClaimMissing, match="has no /email"):
        claims().one(pointer)
    with pytest.raises(ClaimMissing):
        claims(email={"0": "x"}).one(Pointer.parse("/email/0"))


def test_the_subject_is_the_verifiers() -> None:
    """``/sub`` is the subject that was established, also where the document says something else."""
    assert Claims(Login(subject="s", claims={"sub": "other"})).one(Pointer.parse("/sub")) == "s"


def test_texts_and_one_text() -> None:
    """Names are made of texts; a whole number by itself is as good as one, a boolean or a fraction is not."""
    assert claims(c=["a", "b"]).texts(Pointer.parse("/c")) == ("a", "b")
    assert claims(uid=1001).one(Pointer.parse("/uid")) == "1001"
    assert claims(uid=["1001"]).one(Pointer.parse("/uid")) == "1001"
    with pytest.raises(ClaimUnreadable, match="something else"):
        claims(c=["a", 1]).texts(Pointer.parse("/c"))
    for value in (True, 1.5, ["a", "b"]):
        with pytest.raises(ClaimUnreadable):
            claims(c=value).one(Pointer.parse("/c"))


def test_types_are_compared_with_values() -> None:
    """JSON has one kind of number, and truth is not a number."""
    assert typed(1) == typed(1.0)
    assert len({typed(1), typed(True), typed("1"), typed("true")}) == 4
    assert typed(math.inf) != typed("Infinity")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", '"a"'),
        (True, "true"),
        (3, "3"),
        ("\x1b[2J\r\n\x7f", '"\\u001b[2J\\r\\n\\u007f"'),
        ("\u202e\u00e9", '"\\u202e\\u00e9"'),
        ("x" * 100, '"' + "x" * 76 + "..."),
        ("\U0001f600" * 80, '"' + "\\ud83d\\ude00" * 6 + "\\ud8..."),
    ],
)
def test_values_are_shown_printable_and_cut(value: Scalar, text: str) -> None:
    """What a provider sends cannot write to a terminal or fill a log."""
    assert shown(value) == text
    assert len(shown(value)) <= 80
    assert shown(value).isascii()
    assert shown(value).isprintable()


def test_what_went_wrong_holds_no_value() -> None:
    """The reasons are logged: they name the claim and never what is in it."""
    secret = "hunter2-" + "x" * 5000
    for value in (secret, [secret, {}], [secret] * 300):
        with pytest.raises(ClaimUnreadable) as error:
            Claims(login(c=value)).values(Pointer.parse("/c"))
        assert "hunter2" not in f"{error.value} {error.value.hint}"
