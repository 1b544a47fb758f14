"""Encodings with one spelling, compared with independent implementations."""

from __future__ import annotations

import base64
import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from certauth.encoding import b64, b64url, canonical_json, from_b64, from_b64url, strict_json


@given(st.binary(max_size=100))
def test_bytes_survive_both_base64_forms(data: bytes) -> None:
    """Written and read back, agreeing with the standard library."""
    assert from_b64url(b64url(data)) == data
    assert b64url(data) == base64.urlsafe_b64encode(data).decode().rstrip("=")
    assert from_b64(b64(data)) == data
    assert b64(data) == base64.b64encode(data).decode()


@given(st.text(alphabet="AQgw-_+/= \n", max_size=8))
def test_each_value_has_one_spelling(text: str) -> None:
    """Whatever is accepted is what we would have written."""
    for read, write in ((from_b64url, b64url), (from_b64, b64)):
        try:
            data = read(text)
        except ValueError:
            continue
        assert write(data) == text


@pytest.mark.parametrize("text", ["A", "AAAAA", "AB", "AAB", "QQ==", "Q+", "Q/", "QQ\n", " QQ", "QÄ", "Q Q"])
def test_other_spellings_of_base64url_are_refused(text: str) -> None:
    """Impossible lengths, stray bits, padding, the other alphabet, white space."""
    with pytest.raises(ValueError, match="base64url"):
        from_b64url(text)


@pytest.mark.parametrize("text", ["QQ", "QR==", "QQ=", "QQ==\n", "Q-==", "Ä", "QQ==QQ=="])
def test_other_spellings_of_base64_are_refused(text: str) -> None:
    """Missing padding, stray bits, the other alphabet, white space."""
    with pytest.raises(ValueError):  # noqa: PT011 - the words are partly the standard library's
        from_b64(text)


SCALARS = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8)
KEYS = st.text(alphabet=st.characters(max_codepoint=127), max_size=5)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(KEYS, VALUES, max_size=5) | st.lists(VALUES, max_size=5))
def test_canonical_json_is_rfc_8785_and_reads_back(value: dict[str, object] | list[object]) -> None:
    """An independent implementation writes the same bytes, and reading them gives the same value."""
    data = canonical_json(value)
    assert data == rfc8785.dumps(value)  # type: ignore[arg-type]  # the values of both are JSON
    assert strict_json(data) == value


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1.5},
        {"a": float("nan")},
        {"a": 2**53},
        {"a": -(2**53)},
        {"ä": 1},
        {1: "a"},
        {None: 1},
        {"a": b"x"},
        {"a": {1, 2}},
        {"a": [[{"b": 1.0}]]},
        {"a": object()},
    ],
)
def test_values_on_which_libraries_differ_are_refused(value: dict[str, object]) -> None:
    """Anywhere in the value."""
    with pytest.raises(TypeError, match="canonical JSON"):
        canonical_json(value)


def test_text_that_cannot_be_encoded_is_refused() -> None:
    """A lone surrogate is no Unicode text."""
    with pytest.raises(ValueError, match="surrogates"):
        canonical_json({"a": "\ud800"})


def test_tuples_are_lists() -> None:
    """Frozen values can be written."""
    assert canonical_json({"b": (1, 2), "a": None}) == b'{"a":null,"b":[1,2]}'


@given(VALUES)
def test_strict_json_reads_what_everybody_writes(value: object) -> None:
    """Ordinary JSON, with escapes and white space."""
    assert strict_json(json.dumps(value, indent=1).encode()) == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{} {}",
        b'{"a":1,"a":1}',
        b'{"b":{"a":1,"a":2}}',
        b"[NaN]",
        b"[Infinity]",
        b"[-Infinity]",
        b"[1e999]",
        b"[-1e999]",
        b"\xef\xbb\xbf{}",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'{"\\uDC00":1}',
        b"'a'",
        b"[1,]",
        b"[01]",
        b'"\x01"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 5000,
    ],
)
def test_what_lenient_parsers_let_through_is_refused(data: bytes) -> None:
    """Duplicates, infinities (spelt or overflown), BOM, bad UTF-8, lone surrogates, trailing data, deep nesting."""
    with pytest.raises(ValueError):  # noqa: PT011 - the words are partly the standard library's
        strict_json(data)


def test_what_is_ordinary_is_read() -> None:
    """Finite floats and whole surrogate pairs are JSON."""
    assert strict_json(b"[1.5,-2e3]") == [1.5, -2000.0]
    assert strict_json(b'"\\ud83d\\ude00"') == "\U0001f600"


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_but_a_value_error(data: bytes) -> None:
    """A stranger's bytes are JSON or not."""
    try:
        strict_json(data)
    except ValueError:
        return
