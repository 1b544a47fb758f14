"""The Datalog engine (biscuit-python), held at arm's length: what it may be asked, and what can come back.

The engine is written in Rust. When it meets something its authors did not expect it raises ``PanicException``, which is no
``Exception``: an ``except Exception`` in a server would let it through and end the worker. It also puts every failure into
words only. Both are dealt with here and nowhere else.
"""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType
from typing import Any

from biscuit_auth import (
    AuthorizationError,
    AuthorizerBuilder,
    Biscuit,
    BiscuitBlockError,
    BiscuitBuildError,
    BiscuitSerializationError,
    BiscuitValidationError,
    DataLogError,
    PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from certauth.errors import TokenError
from certauth.keys import raw
from certauth.tokens.codec import WHOLE

MAX_TIME = timedelta(milliseconds=500)
MAX_FACTS, MAX_ITERATIONS = 1000, 100

_ERRORS = (
    AuthorizationError,
    BiscuitBlockError,
    BiscuitBuildError,
    BiscuitSerializationError,
    BiscuitValidationError,
    DataLogError,
)
Builder: Any = AuthorizerBuilder
"""The authorizer's builder; the binding's type stubs lack its limits and have its ``merge`` wrong."""

_LIMIT = "Reached Datalog execution limits"


class Guard:
    """A context in which the engine's failures, panics included, become ``TokenError``; everything else passes through.

    The original is not chained: its text may quote the token.
    """

    __slots__ = ("_code", "_hint", "_sentence")

    def __init__(self, code: str, sentence: str, *, hint: str = WHOLE) -> None:
        self._code = code
        self._sentence = sentence
        self._hint = hint

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None and (issubclass(kind, _ERRORS) or is_panic(kind)):
            raise TokenError(self._code, self._sentence, hint=self._hint) from None


def is_panic(kind: type[BaseException]) -> bool:
    """Whether ``kind`` is the engine's panic, a class that exists only once it has been raised and cannot be imported."""
    return kind.__name__ == "PanicException" and kind.__module__ == "pyo3_runtime"


def is_limit(error: AuthorizationError) -> bool:
    """Whether the engine gave up rather than decided. Compared whole, so that a token's own strings cannot pretend it."""
    return str(error) == _LIMIT


def engine_key(public: Ed25519PublicKey) -> PublicKey:
    """A root key as the engine takes it."""
    return PublicKey(f"ed25519/{raw(public).hex()}")


def verify_signatures(data: bytes, key: PublicKey) -> Biscuit:
    """The engine's token, every signature of which was verified from ``key``; ``TokenError`` (``token-signature``) else."""
    with _VERIFYING:
        return Biscuit.from_bytes(data, key)


_VERIFYING = Guard("token-signature", "the token's signatures do not verify")
