"""However the bytes of a token are mangled, a reader gets an error of ours or a token, and only the true one verifies."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import example, given, settings
from hypothesis import strategies as st

from certauth.errors import CertauthError
from certauth.tokens.attenuate import attenuate
from certauth.tokens.codec import decode, encode, to_text
from certauth.tokens.inspect import describe
from certauth.tokens.signing import append_answer, third_party_answer
from certauth.tokens.verify import verify
from certauth.tokens.vocabulary import Narrowing
from tests.certauth.tokens.kit import Facility, entropy
from tests.conformance.corpus import samples

ALS = Facility()
PLAIN = ALS.mint()
HONEST = (PLAIN, attenuate(PLAIN, Narrowing(paths=("/data/run7/",), networks=("10.0.0.0/8", "2001:db8::/32"))))
OTHERS = tuple(make().data for _, make in samples())
NARROWING = Narrowing(operations=("read",))
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def cut(data: bytes, at: float) -> int:
    """A position in ``data``."""
    return int(at * len(data))


places = st.floats(0, 1, exclude_max=True)
edits = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "delete", "double", "swap"]), places, places, st.binary(min_size=1, max_size=6)
    ),
    min_size=1,
    max_size=4,
)


def edited(data: bytes, how: list[tuple[str, float, float, bytes]]) -> bytes:
    """``data`` after these edits."""
    for kind, one, other, new in how:
        first, last = sorted((cut(data, one), cut(data, other)))
        match kind:
            case "insert":
                data = data[:first] + new + data[first:]
            case "replace":
                data = data[:first] + new + data[first + len(new) :]
            case "delete":
                data = data[:first] + data[last:]
            case "double":
                data = data[:last] + data[first:last] + data[last:]
            case _:
                data = data[last:] + data[first:last] + data[:first]
    return data


def refusal(action: object, *given_: object, **more: object) -> str:
    """The code of a refusal; empty if there was none. Anything but an error of ours fails the test."""
    try:
        action(*given_, **more)  # type: ignore[operator]
    except CertauthError as error:
        return error.code
    return ""


@settings(max_examples=400)
@given(data=st.sampled_from(HONEST), how=edits)
def test_only_the_token_itself_verifies(data: bytes, how: list[tuple[str, float, float, bytes]]) -> None:
    """An edited token is refused, unless it is the same again; no door lets anything but our errors through."""
    changed = edited(data, how)
    assert changed in HONEST or refusal(verify, to_text(changed), ALS.roots)
    refusal(describe, to_text(changed), now=NOW)
    refusal(attenuate, changed, NARROWING)


@settings(max_examples=400)
@given(data=st.sampled_from(OTHERS), how=edits)
def test_anything_read_is_written_the_same(data: bytes, how: list[tuple[str, float, float, bytes]]) -> None:
    """Whatever the codec reads of an edited token of any content, it writes as it was: there is one spelling."""
    changed = edited(data, how)
    if not refusal(decode, changed):
        assert encode(decode(changed)) == changed


@settings(max_examples=300)
@given(st.binary(max_size=300))
@example(b"\x12\x00\x22\x00")
def test_noise_is_refused(data: bytes) -> None:
    """Bytes that are no token, no request and no answer get a code at every door."""
    assert refusal(decode, data)
    assert refusal(verify, to_text(data), ALS.roots)
    assert refusal(third_party_answer, data, ALS.spec().block(), ALS.holder)
    assert refusal(append_answer, decode(PLAIN), data, entropy=entropy)


@settings(max_examples=200)
@given(st.text(max_size=200))
def test_texts_are_refused(text: str) -> None:
    """Text of any alphabet likewise."""
    assert refusal(verify, text, ALS.roots)
    assert refusal(describe, text, now=NOW)
