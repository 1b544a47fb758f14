"""Readiness that tells the truth: every part that fails is named, with its cause; nothing is constant."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from certauth.clock import rfc3339
from certauth.errors import CertauthError
from certauth.revocation import MAX_ENTRIES
from signer.ledger import LedgerState
from signer.service import Service
from signer.sources import SourceStatus

_STUCK_SECONDS = 10.0
"""A batch takes milliseconds; one that takes this long waits for a disk that does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the service. ``degraded`` means that some users are affected and others can be served."""

    name: str
    state: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """All parts together; ready unless one has failed."""

    parts: tuple[Part, ...]

    @property
    def ready(self) -> bool:
        return all(part.state != "failed" for part in self.parts)

    def body(self) -> dict[str, object]:
        return {
            "ready": self.ready,
            "parts": {part.name: {"state": part.state, "detail": part.detail} for part in self.parts},
        }


def readiness(service: Service) -> Readiness:
    """Look at database, log, disk, issuing certificate, keys, decision log, feed and each identity provider."""
    return Readiness(
        parts=(
            _store(service),
            _log(service),
            _disk(service),
            _authority(service),
            _keys(service),
            _decisions(service),
            _feed(service),
            *_issuers(service),
        )
    )


def _store(service: Service) -> Part:
    try:
        service.store.check()
    except CertauthError as error:
        return Part(name="database", state="failed", detail=str(error))
    return Part(name="database", state="ok", detail=str(service.store.path))


def _log(service: Service) -> Part:
    status = service.ledger.status()
    if status.state is not LedgerState.READY:
        return Part(name="log", state="failed", detail=str(status.cause or "closed"))
    if status.busy_for > _STUCK_SECONDS:
        return Part(name="log", state="failed", detail=f"a batch has been under way for {status.busy_for:.0f} s")
    return Part(name="log", state="ok", detail=f"{status.size} entries")


def _disk(service: Service) -> Part:
    least = service.settings.limits.free_disk_bytes
    try:
        free = shutil.disk_usage(service.settings.state).free
    except OSError as error:
        return Part(name="disk", state="failed", detail=str(error.strerror))
    return Part(name="disk", state="ok" if free >= least else "failed", detail=f"{free} bytes free, {least} wanted")


def _authority(service: Service) -> Part:
    end = service.authority.issuing.not_valid_after_utc
    state = "ok" if service.clock() < end else "failed"
    return Part(name="authority", state=state, detail=f"issuing certificate ends {rfc3339(end)}")


def _keys(service: Service) -> Part:
    try:
        keys = service.keys.current()
    except CertauthError as error:
        return Part(name="keys", state="failed", detail=str(error))
    if keys.problem is not None:
        return Part(name="keys", state="failed", detail=str(keys.problem))
    signing = ", ".join(f"{use} {keys.index.active(use).kid}" for use in keys.signing)
    return Part(name="keys", state="ok", detail=f"{signing}; bundle {keys.bundle.sequence}")


def _decisions(service: Service) -> Part:
    failure = service.decisions.failure
    if failure is not None:
        return Part(name="decisions", state="degraded", detail=str(failure))
    return Part(name="decisions", state="ok", detail=f"{service.decisions.dropped} records dropped")


def _feed(service: Service) -> Part:
    """Services go on with the list they have, until it is too old for them; our own door goes on with the table."""
    try:
        fill = service.withdrawals.fill()
    except CertauthError as error:
        return Part(name="revocations", state="failed", detail=str(error))
    detail = f"{fill.entries} of {MAX_ENTRIES} entries" + (f", {fill.failure}" if fill.failure else "")
    return Part(name="revocations", state="degraded" if fill.nearly_full or fill.failure else "ok", detail=detail)


def _issuers(service: Service) -> tuple[Part, ...]:
    """A provider that is down stops its own users only, and is no reason to take the service out of rotation."""
    names = {issuer.url: issuer.id for issuer in service.settings.issuer}
    return tuple(_issuer(names[status.url], status) for status in service.key_source.status())


def _issuer(name: str, status: SourceStatus) -> Part:
    """Endpoints that moved and keys that anybody could sign with are shown until a person has looked and restarted."""
    alarms = [f"moved since the start: {', '.join(status.moved)}"] if status.moved else []
    alarms += [reason for reason in status.ignored if ": ALARM: " in reason]
    words = [f"{status.keys} keys", status.state, *([status.failure] if status.failure else ()), *alarms]
    state = "degraded" if alarms or status.state == "none" else "ok"
    return Part(name=f"issuer:{name}", state=state, detail=", ".join(words))
