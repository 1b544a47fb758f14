"""The errors of certauth: what went wrong, a stable code, and what to do about it.

    CertauthError
      UsageError            the caller asked for something that cannot be
      ConfigError           a settings file, policy or trust document is wrong
      KeyMaterialError      a key cannot be used: unreadable, too open, or a published example
      ProofError            an identity proof does not prove it
      RequestError          a certification or token request is not acceptable
      ChainError            a certificate does not lead to a trusted root
      TokenError            a token is malformed, hostile, or not signed by a trusted key
      RevokedError          a credential was withdrawn
      LogError              the audit log, or something said about it, does not verify
      StoreError            durable state cannot be read or written
      UnavailableError      another service cannot be reached or does not answer in time
      AnswerError           another service's answer is malformed, too large, or about something else than was asked
      LoginRequired         the user's credential is missing or has run out
      Refused               the other side decided against the request

A *code* is kebab-case, stable, and documented in the error reference; the sentence is for people and may change.
Neither ever holds a token, a key or a whole set of claims.
"""

from __future__ import annotations


class CertauthError(Exception):
    """An error with a stable ``code``, a sentence, and perhaps a ``hint`` and seconds to wait before a retry."""

    def __init__(self, code: str, message: str, *, hint: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


class UsageError(CertauthError):
    """The caller asked for something that cannot be."""


class ConfigError(CertauthError):
    """A settings file, policy or trust document is wrong; the program must not start with it."""


class KeyMaterialError(CertauthError):
    """A key cannot be used: unreadable, readable by others, of a forbidden kind, or a published example."""


class ProofError(CertauthError):
    """An identity proof does not prove what it claims."""


class RequestError(CertauthError):
    """A certification or token request is malformed or asks for what is never granted."""


class ChainError(CertauthError):
    """A certificate does not lead to a root that its trust domain's bundle names."""


class TokenError(CertauthError):
    """A token is malformed, structurally hostile, or not signed by a trusted key."""


class RevokedError(CertauthError):
    """A credential was withdrawn before its end."""


class LogError(CertauthError):
    """The audit log, or a statement about it, does not verify."""


class StoreError(CertauthError):
    """Durable state cannot be read or written; nothing may be released."""


class UnavailableError(CertauthError):
    """Another service cannot be reached, or does not answer in time."""


class AnswerError(CertauthError):
    """Another service's answer is malformed, too large, or about something else than was asked; nothing of it was used."""


class LoginRequired(CertauthError):
    """The user's credential is missing or has run out."""


class Refused(CertauthError):
    """The other side understood the request and decided against it."""
