"""What an error of the database means, in our own terms. SQLAlchemy's text is never used: it quotes what was to be stored."""

from __future__ import annotations

import errno
import sqlite3

from sqlalchemy.exc import DatabaseError, DataError, DBAPIError, IntegrityError, ProgrammingError

from certauth.errors import CertauthError, StoreError


def cause_of(error: Exception) -> CertauthError:
    """An error of the store, the log or the file system as one of ours, without the parameters SQLAlchemy would quote."""
    match error:
        case CertauthError():
            return error
        case DBAPIError(orig=sqlite3.Error(sqlite_errorcode=sqlite3.SQLITE_FULL)) | OSError(errno=errno.ENOSPC):
            return StoreError(
                "disk-full", "the disk of the database is full", hint="make room; nothing was lost", retry_after=30
            )
        case _:
            return StoreError(
                "audit-unavailable",
                f"the database cannot be used: {why(error)}",
                retry_after=1,
                hint="try again in a moment; the signer's /readyz names the cause",
            )


def why(error: Exception) -> str:
    """The database's own words, or the type of the error; never SQLAlchemy's text, which quotes what was to be stored."""
    return str(error.orig) if isinstance(error, DBAPIError) else type(error).__name__


def is_fault_of_store(error: Exception) -> bool:
    """Whether an error before COMMIT says that nothing can be recorded, rather than that this submission cannot."""
    if isinstance(error, DatabaseError):
        return not isinstance(error, IntegrityError | DataError | ProgrammingError)
    return isinstance(error, CertauthError | OSError)
