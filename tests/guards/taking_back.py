"""What is taken back, and what the record keeps of it."""

from __future__ import annotations

from typing import Final

from tests.guards.form import Guard

GUARDS: Final[tuple[Guard, ...]] = (
    (
        "revocation: of a part by whom it belongs to",
        (
            (
                "signer/revoking.py",
                "allowed, target = isinstance(self._may(body.value, found, peer), MayRevoke),",
                "allowed, target = True,",
            ),
        ),
        ("tests/signer/test_oauth.py",),
    ),
    (
        "revocation: of a JWT by its user",
        (
            (
                "signer/revoking.py",
                "            (stored.row.principal, peer.fingerprint),",
                "            (peer.principal, peer.fingerprint),",
            ),
        ),
        ("tests/signer/test_oauth.py",),
    ),
    (
        "revocation: of the whole by its user",
        (
            (
                "signer/revoking.py",
                "        if found.user == str(peer.principal) and len(found.block_ids) == 1:",
                "        if len(found.block_ids) == 1:",
            ),
        ),
        ("tests/signer/test_oauth.py",),
    ),
    (
        "revocation: of one's own only",
        (("signer/revoking.py", "        if not allowed and str(peer.principal) not in self._admins:", "        if False:"),),
        ("tests/signer/test_issuing.py",),
    ),
    (
        "revocation: twice is once",
        (
            (
                "signer/revoking.py",
                '            request_id=request_id if entry.before else entries.own_id("revoke", digest),',
                "            request_id=request_id,",
            ),
        ),
        ("tests/signer/test_service.py",),
    ),
    (
        "refusals: repeated, one entry",
        (
            (
                "signer/recording.py",
                'request_id=entries.own_id("deny", digest), digest=digest, event=event',
                'request_id=entries.own_id("deny", self._entropy(16)), digest=digest, event=event',
            ),
        ),
        ("tests/signer/test_service.py",),
    ),
    (
        "record: a refusal is recorded before it is answered",
        (("signer/recording.py", "        await self._handoff.record(denial)\n", "        del denial\n"),),
        ("tests/signer/test_issuing.py",),
    ),
    (
        "signer: without its database it knows nobody and says so",
        (
            (
                "signer/withdrawals.py",
                "return self.revocations(domain)\n        except StoreError:",
                "return self.revocations(domain)\n        except ZeroDivisionError:",
            ),
        ),
        ("tests/journeys/test_disk_and_database.py",),
    ),
    (
        "ending: certificates that tokens may name end with them",
        (
            (
                "signer/ending.py",
                "return (*rows, *_certificates(store, principals, reason=why, by=by, at=at, most=most))",
                "return rows",
            ),
        ),
        ("tests/signer/test_ending.py",),
    ),
    (
        "ending: what came in between ends, too",
        (("signer/ending.py", "if not agents and not late:", "if True:"),),
        ("tests/signer/test_ending.py",),
    ),
    (
        "ending: known as long as a handed token lives",
        (("signer/ending.py", "return int((not_after + HANDED_ON).timestamp())", "return int(not_after.timestamp())"),),
        ("tests/signer/test_ending.py",),
    ),
    (
        "ending: agents end with all that their owner has",
        (
            (
                "signer/cli/withdrawing.py",
                "return (*everything, *ending_with(place.store, principal, reason=reason, by=by, at=at))",
                "return everything",
            ),
        ),
        ("tests/signer/test_ending.py",),
    ),
    (
        "feed: one that cannot be signed still counts here",
        (("signer/withdrawals.py", "            return error\n", "            raise\n"),),
        ("tests/signer/test_withdrawals.py",),
    ),
    (
        "refusals: so many logins have entries of their own",
        (("signer/recording.py", "if login not in known and len(known) >= MAX_REFUSED:", "if False:"),),
        ("tests/signer/test_refusals.py",),
    ),
    (
        "revocation: what is withdrawn already takes no room",
        (("signer/revoking.py", "rows=() if target.covered else", "rows=() if False else"),),
        ("tests/signer/test_revoking.py",),
    ),
    (
        "revocation: so many of one's own certificates",
        (("signer/revoking.py", ">= MAX_OWN_CERTIFICATES", ">= 10**9"),),
        ("tests/signer/test_ending.py",),
    ),
    (
        "log: no entry behind the clock of the log",
        (("signer/log_head.py", "    if now < newest - MAX_CLOCK_STEP:", "    if False:"),),
        ("tests/signer/test_clock.py",),
    ),
    (
        "metrics: for this machine only",
        (("signer/api/documents.py", 'if service.settings.metrics == "loopback" and not _is_here(request):', "if False:"),),
        ("tests/signer/test_service.py",),
    ),
    (
        "refusals: an entry's digest is no guess at a login",
        (
            (
                "signer/recording.py",
                'hmac.digest(self._names, entries.digest("deny", operation, refusal.code, *who), "sha256")',
                'entries.digest("deny", operation, refusal.code, *who)',
            ),
        ),
        ("tests/signer/test_refusals.py",),
    ),
    (
        "ending: so many certificates of an owner's agents",
        (("signer/ending.py", "most=max(0, MAX_OF_OWNER - before)", "most=None"),),
        ("tests/signer/test_ending.py",),
    ),
    (
        "ending: no token longer than withdrawals are remembered",
        (("signer/settings.py", "le=timedelta(hours=24),", ""),),
        ("tests/signer/test_settings.py",),
    ),
    (
        "erasure: done only when the write-ahead log is empty",
        (("signer/cli/logins.py", "    if not emptied:", "    if False:"),),
        ("tests/signer/test_erasure.py",),
    ),
    (
        "erasure: logins that were theirs once",
        (("signer/row_changes.py", " | _former(connection, principal)\n", "\n"),),
        ("tests/signer/test_enrolment_admin.py",),
    ),
)
