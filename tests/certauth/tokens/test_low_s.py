"""An ECDSA signature has one form, and nothing else is taken for it."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from certauth.tokens.low_s import is_low_s, low_s
from tests.conformance.chain import ORDER, malleated

numbers = st.integers(1, ORDER - 1)


@given(numbers, numbers)
def test_both_forms_become_one(r: int, s: int) -> None:
    """Exactly one of the two forms is low, and both lead to it."""
    signature = encode_dss_signature(r, s)
    low = low_s(signature)
    assert low == low_s(malleated(signature))
    assert decode_dss_signature(low) == (r, min(s, ORDER - s))
    assert [is_low_s(low), is_low_s(malleated(low))] == [True, False]


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b"s" * 64,  # Ed25519's size
        encode_dss_signature(0, 1),
        encode_dss_signature(1, 0),
        encode_dss_signature(ORDER, 1),
        encode_dss_signature(1, ORDER),
        encode_dss_signature(1, ORDER + 1),
        bytes.fromhex("300602010102010100"),  # and then some
        bytes.fromhex("300702020001020101"),  # a zero in front
        bytes.fromhex("30060201ff020101"),  # negative
        bytes.fromhex("308106020101020101"),  # a length in the long form
    ],
)
def test_what_is_no_signature_has_no_form(signature: bytes) -> None:
    """Numbers outside the order, and any other encoding than strict DER, are no P-256 signature."""
    assert not is_low_s(signature)
    with pytest.raises(ValueError, match=r".+"):
        low_s(signature)
