"""Tokens: profile ``fac/1`` on Biscuit. Mint, narrow, hand over, have vouched for, verify, evaluate, explain."""

from certauth.tokens.attenuate import attenuate
from certauth.tokens.attest import (
    answer_from_text,
    answer_to_text,
    append_attestation,
    attest,
    request_attestation,
    request_from_text,
    request_to_text,
)
from certauth.tokens.authorizer import Allowed, FailedCheck, NotAllowed, evaluate
from certauth.tokens.codec import from_text, to_text
from certauth.tokens.delegate import delegate
from certauth.tokens.inspect import block_ids, describe
from certauth.tokens.mint import mint
from certauth.tokens.revoke import MayNotRevoke, MayRevoke, may_revoke_block
from certauth.tokens.seal import seal
from certauth.tokens.verify import Member, TrustedAttester, TrustedTokenKey, VerifiedToken, verify
from certauth.tokens.vocabulary import MemberOf, Narrowing, Right, TokenSpec

__all__ = [
    "Allowed",
    "FailedCheck",
    "MayNotRevoke",
    "MayRevoke",
    "Member",
    "MemberOf",
    "Narrowing",
    "NotAllowed",
    "Right",
    "TokenSpec",
    "TrustedAttester",
    "TrustedTokenKey",
    "VerifiedToken",
    "answer_from_text",
    "answer_to_text",
    "append_attestation",
    "attenuate",
    "attest",
    "block_ids",
    "delegate",
    "describe",
    "evaluate",
    "from_text",
    "may_revoke_block",
    "mint",
    "request_attestation",
    "request_from_text",
    "request_to_text",
    "seal",
    "to_text",
    "verify",
]
