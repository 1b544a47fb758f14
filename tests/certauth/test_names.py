"""Names: what is one, and the attacks that are none."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certauth.errors import RequestError
from certauth.names import Kind, Principal, TrustDomain, label

ALS = TrustDomain.parse("als.example")


@pytest.mark.parametrize("name", ["als.example", "a", "x-1.example", "xn--bcher-kva.example", "a" * 63 + ".b"])
def test_a_trust_domain_is_a_lower_case_dns_name(name: str) -> None:
    """It comes back as it was written."""
    assert str(TrustDomain.parse(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "a.", ".a", "a..b", "A.example", "als.example\n", "als_example", "-a", "a-", "a/b", "bücher.example", "a b",
        "a" * 64, ".".join(["a" * 63] * 4), "../etc", "als.example:443", "user@als.example", "*",
    ],
)  # fmt: skip
def test_what_is_no_trust_domain(name: str) -> None:
    """Upper case, ports, wildcards, paths and over-long names."""
    with pytest.raises(RequestError, match="bad-name"):
        TrustDomain.parse(name)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("id_", ["alice", "Alice", "a", "_x", "alice@als.example", "a.b-c_d+e", "x" * 128])
def test_a_principal_survives_its_uri(kind: Kind, id_: str) -> None:
    """Text and back, for every kind."""
    principal = Principal.make(ALS, kind, id_)
    assert str(principal) == f"spiffe://als.example/{kind}/{id_}"
    assert Principal.parse(str(principal)) == principal


BAD_IDS = [
    "", ".", "..", ".hidden", "../root", "a/b", "a/../b", "a..b", "a%2fb", "a b", "a\n", "a\x00", "-x", "@x", "+x", "ä",
    "x" * 129, "a\\b", "a:b", "a?b", "a#b", "$(x)", '"', "'", "a;b",
]  # fmt: skip


@pytest.mark.parametrize("id_", BAD_IDS)
def test_what_is_no_id(id_: str) -> None:
    """Whatever could climb, be split, be quoted or be invisible."""
    with pytest.raises(RequestError, match="bad-name"):
        Principal.make(ALS, Kind.USER, id_)
    with pytest.raises(RequestError, match="bad-name"):
        Principal.parse(f"spiffe://als.example/user/{id_}")


@pytest.mark.parametrize(
    "uri",
    [
        "", "alice", "spiffe://", "spiffe://als.example", "spiffe://als.example/", "spiffe://als.example/user",
        "spiffe://als.example/user/", "spiffe://als.example/root/alice", "spiffe://als.example/User/alice",
        "spiffe:///user/alice", "SPIFFE://als.example/user/alice", "https://als.example/user/alice",
        "spiffe://als.example//user/alice", "spiffe://als.example/user/alice/", "spiffe://als.example/user/alice?x",
        "spiffe://als.example/user/alice#x", "spiffe://x@als.example/user/alice", "spiffe://als.example:1/user/alice",
        " spiffe://als.example/user/alice", "spiffe://ALS.example/user/alice",
    ],
)  # fmt: skip
def test_what_is_no_principal(uri: str) -> None:
    """Other schemes, other kinds, missing or additional parts, and other spellings of the same."""
    with pytest.raises(RequestError, match="bad-name"):
        Principal.parse(uri)


@given(st.text(max_size=60))
def test_an_id_is_always_one_safe_file_name(text: str) -> None:
    """Whatever is accepted is a single path segment, printable ASCII, and neither hidden nor a parent."""
    try:
        principal = Principal.make(ALS, Kind.USER, text)
    except RequestError:
        return
    assert PurePosixPath("/base", principal.id).parent == PurePosixPath("/base")
    assert principal.id.isascii()
    assert principal.id.isprintable()
    assert not principal.id.startswith(".")
    assert Principal.parse(str(principal)) == principal


def test_the_same_id_elsewhere_is_somebody_else() -> None:
    """Domain and kind are part of the name."""
    other = TrustDomain.parse("ornl.example")
    names = {Principal.make(domain, kind, "alice") for domain in (ALS, other) for kind in Kind}
    assert len(names) == 2 * len(Kind)


@pytest.mark.parametrize("text", ["files", "0", "a.b_c-d", "x" * 64])
def test_a_label_is_kept(text: str) -> None:
    """Lower-case, one segment."""
    assert label(text, "a service") == text


@pytest.mark.parametrize("text", ["", "A", ".a", "-a", "a..b", "../a", "a/b", "a b", "ä", "a\n", "x" * 65])
def test_what_is_no_label(text: str) -> None:
    """The error says what it should have been."""
    with pytest.raises(RequestError, match="cannot be a service"):
        label(text, "a service")


def test_an_error_quotes_a_bounded_part_of_a_name() -> None:
    """A megabyte of name does not become a megabyte of log, and control characters are escaped."""
    for parse in (
        TrustDomain.parse,
        Principal.parse,
        lambda text: label(text, "x"),
        lambda text: Principal.make(ALS, Kind.USER, text),
    ):
        with pytest.raises(RequestError) as caught:
            parse("\x1b" * 1_000_000)
        assert len(str(caught.value)) < 700
        assert "\x1b" not in str(caught.value)
