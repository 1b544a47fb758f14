"""What the engine can do to us comes back as one of our errors."""

from __future__ import annotations

from datetime import timedelta

import pytest
from biscuit_auth import AuthorizationError, AuthorizerBuilder, BiscuitBuilder, DataLogError, KeyPair

from certauth.errors import TokenError
from certauth.tokens.engine import Builder, Guard, engine_key, is_limit, is_panic, verify_signatures
from tests.certauth.tokens.kit import Facility


def dead_builder() -> AuthorizerBuilder:
    """A builder that failed once: whatever is asked of it next, it panics."""
    builder = AuthorizerBuilder()
    with pytest.raises(DataLogError):
        builder.add_code("nonsense(")
    return builder


def test_a_panic_is_no_exception() -> None:
    """The control: without the guard, the engine's panic passes ``except Exception``."""
    builder = dead_builder()
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - its class cannot be imported
        builder.add_code("f(1)")
    assert not isinstance(caught.value, Exception)
    assert is_panic(type(caught.value))


def test_panics_become_token_errors() -> None:
    """With the guard a panic is a ``TokenError`` that carries nothing of the original."""
    builder = dead_builder()
    with pytest.raises(TokenError) as caught, Guard("token-unusable", "cannot"):
        builder.add_code("f(1)")
    assert caught.value.code == "token-unusable"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_engine_errors_become_token_errors(als: Facility) -> None:
    """An error of the engine likewise."""
    with pytest.raises(TokenError) as caught:
        verify_signatures(b"nonsense", engine_key(als.root.public_key))  # type: ignore[arg-type]  # it is Ed25519
    assert caught.value.code == "token-signature"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
def test_nothing_else_is_caught(error: type[BaseException]) -> None:
    """Interrupts, exits and our own mistakes pass the guard unchanged."""
    with pytest.raises(error), Guard("token-unusable", "cannot"):
        raise error


def test_a_class_of_the_same_name_is_no_panic() -> None:
    """Only the engine's own class counts."""
    assert not is_panic(type("PanicException", (BaseException,), {}))
    assert not is_panic(BaseException)


def test_a_limit_is_told_from_a_refusal() -> None:
    """Giving up is recognised by the whole message, so a token cannot make a refusal look like it."""
    token = BiscuitBuilder('a(1); b($x) <- a($x); check if x("Reached Datalog execution limits")').build(KeyPair().private_key)
    for seconds, limited in ((0, True), (30, False)):
        builder = Builder("allow if true")
        limits = builder.limits()
        limits.max_time = timedelta(seconds=seconds)
        builder.set_limits(limits)
        with pytest.raises(AuthorizationError) as caught:
            builder.build(token).authorize()
        assert is_limit(caught.value) is limited
