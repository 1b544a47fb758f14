"""Scopes with paths: the semantics of the WLCG profile, with the SciTokens library as a second opinion."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scitokens import SciToken  # type: ignore[import-untyped]
from scitokens.scitokens import Enforcer, InvalidAuthorizationResource  # type: ignore[import-untyped]

from certauth.errors import RequestError
from certauth.identity.mapping import Pointer
from certauth.identity.mapping.claims import ClaimUnreadable
from certauth.identity.mapping.scopes import Scope, is_canonical_path, is_scope_name, paths_below, read_scopes
from certauth.requests import canonical_path, path_covers

SCOPE = Pointer.parse("/scope")
STORAGE = frozenset({"storage.read", "storage.modify"})


def read(*texts: str, names: frozenset[str] = STORAGE) -> list[Scope]:
    """The scopes in a claim."""
    return list(read_scopes(texts, names, SCOPE))


def ours(scope: str, path: str) -> bool:
    """Whether the rights that a scope makes cover the path; a refused scope covers nothing."""
    try:
        scopes = read(scope)
    except ClaimUnreadable:
        return False
    return any(path_covers(held, path) for found in scopes for held in paths_below("/", found.path))


def theirs(scope: str, path: str) -> bool:
    """What the SciTokens library says."""
    token = SciToken()
    token["scope"] = scope
    try:
        return bool(Enforcer("https://issuer.example").test(token, "storage.read", path))
    except InvalidAuthorizationResource:
        return False


PLAIN = ("/", "/a", "/a/", "/ab", "/a/b", "/a/b/", "/a/b/c", "/b", "/a/bc", "/A", "/a.b", "/a/..b")
ODD = ("/a/../b", "/..", "/a//b", "//a", "/a/./b", "/a%2fb", "/a/%2e%2e/b", "a", "", "/a?b", "/a#b", "/a*", "/a\\b")


@pytest.mark.parametrize(("scope", "path"), list(product(PLAIN, PLAIN)))
def test_the_same_as_scitokens(scope: str, path: str) -> None:
    """For every canonical scope and path, what a scope covers is what another implementation says it covers."""
    assert ours(f"storage.read:{scope}", path) is theirs(f"storage.read:{scope}", path)


@pytest.mark.parametrize("scope", ODD)
def test_never_more_than_scitokens(scope: str) -> None:
    """A path with more than one reading is refused, where others normalise it."""
    with pytest.raises(ClaimUnreadable, match="not canonical"):
        read(f"storage.read:{scope}")
    for path in PLAIN:
        assert not (ours(f"storage.read:{scope}", path) and not theirs(f"storage.read:{scope}", path))


@given(st.text("/ab.", max_size=8), st.text("/ab", max_size=8))
def test_never_more_than_scitokens_for_any_text(scope: str, path: str) -> None:
    """Whatever the scope, no canonical path is covered here that is not covered there."""
    if path.startswith("/") and is_canonical_path(path):
        assert not ours(f"storage.read:{scope}", path) or theirs(f"storage.read:{scope}", path)


@pytest.mark.parametrize(
    ("scope", "path", "covered"),
    [
        # WLCG Common JWT Profiles §2.2.1
        ("/foo/bar", "/foo/bar", True),
        ("/foo/bar", "/foo/bar/qux", True),
        ("/foo/bar", "/foo/bargain", False),
        ("/foo/bar", "/foo", False),
        ("/foo/bar/", "/foo/bar", False),
        ("/foo/bar/", "/foo/bar/qux", True),
        ("/foo", "/bar", False),
        ("/", "/anything/at/all", True),
    ],
)
def test_the_examples_of_the_profile(scope: str, path: str, covered: bool) -> None:
    """What the profile says must be allowed and must be denied."""
    assert ours(f"storage.read:{scope}", path) is covered


def test_a_claim_of_scopes() -> None:
    """One text with spaces, or a list as some providers send; other scopes are left alone, repeated ones kept."""
    scopes = [Scope("storage.read", "/a"), Scope("storage.modify", "/b")]
    assert read("openid storage.read:/a  storage.modify:/b storage.create:/c") == scopes
    assert read("openid", "storage.read:/a", "storage.modify:/b") == scopes
    assert read("storage.reader:/a Storage.read:/a storage.read.x:/a") == []
    assert read("compute.create", names=frozenset({"compute.create"})) == [Scope("compute.create", None)]


@pytest.mark.parametrize("text", ["storage.read", "openid storage.modify storage.read:/a"])
def test_a_storage_scope_has_a_path(text: str) -> None:
    """The profile: without one the token must be rejected, not the scope ignored."""
    with pytest.raises(ClaimUnreadable, match="without a path"):
        read(text)


@pytest.mark.parametrize(
    ("base", "path", "paths"),
    [
        ("/cms/", "/a", ("/cms/a", "/cms/a/")),
        ("/cms/", "/a/", ("/cms/a/",)),
        ("/cms/", "/", ("/cms/",)),
        ("/cms/", None, ("/cms/",)),
        ("/", "/", ("/",)),
        ("/", "/a", ("/a", "/a/")),
    ],
)
def test_where_a_scope_lies(base: str, path: str | None, paths: tuple[str, ...]) -> None:
    """Below the base, always: nothing outside it is covered by any scope."""
    assert paths_below(base, path) == paths
    assert all(path_covers(base, made) for made in paths)


@given(
    st.text(max_size=20) | st.text("/a.%*", max_size=12).map("/".__add__) | st.integers(500, 520).map(lambda n: "/" + "a" * n)
)
def test_canonical_is_what_requests_take(path: str) -> None:
    """There is one notion of a path's canonical form: what is one here is one where a token is asked for."""
    try:
        taken = bool(canonical_path(path))
    except RequestError:
        taken = False
    assert is_canonical_path(path) is taken


@pytest.mark.parametrize(
    ("name", "good"), [("storage.read", True), ("a_b-c", True), ("", False), ("a:b", False), ("a b", False)]
)
def test_names_of_scopes(name: str, good: bool) -> None:
    """What stands before the colon."""
    assert is_scope_name(name) is good
