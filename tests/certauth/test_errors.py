"""Errors carry a stable code, a sentence and perhaps help."""

from __future__ import annotations

import inspect

from certauth import errors
from certauth.errors import CertauthError, TokenError


def test_an_error_has_a_code_a_sentence_and_help() -> None:
    """All four parts are there, and the text shows the code."""
    error = TokenError("token-expired", "the token has ended", hint="certauth token mint", retry_after=3)
    assert (error.code, error.message, error.hint, error.retry_after) == (
        "token-expired",
        "the token has ended",
        "certauth token mint",
        3,
    )
    assert str(error) == "the token has ended [token-expired]"
    assert error.args == ("the token has ended",)


def test_help_is_optional() -> None:
    """A code and a sentence are enough."""
    error = TokenError("x", "y")
    assert (error.hint, error.retry_after) == (None, None)


def test_every_error_is_one_of_the_family_and_documented() -> None:
    """One ``except`` catches all of them, and the module's tree names each."""
    classes = [value for _, value in inspect.getmembers(errors, inspect.isclass)]
    assert len(classes) > 10
    for cls in classes:
        assert issubclass(cls, CertauthError)
        assert cls.__doc__
        assert cls.__name__ in (errors.__doc__ or "")
