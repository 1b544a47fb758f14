"""Negative controls: with each guard of the road removed in turn, at least one test fails.

    python -m tests.mutations                 every guard, and a table: guard -> file -> the test that failed
    python -m tests.mutations --only binding  those whose name contains a word; may be repeated
    python -m tests.mutations --list          what there is

The tree is copied to a temporary directory, one guard is taken out there by replacing text, and a few narrow test files run
against the copy. A test that fails is what is wanted. A text that is no longer found, tests that do not run, tests that fail
without the mutation, and above all a mutation that survives, end this with exit status 1.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.guards.every import GUARDS
from tests.guards.form import Edit

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 240
"""How long the tests of one mutation may take."""
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+::.+?)(?: - .*)?$", re.MULTILINE)

_SLIP = re.compile(r"\b(?:NameError|UnboundLocalError|ImportError|ModuleNotFoundError|SyntaxError|IndentationError): .*")
"""A mutation that is no program fails tests, too, and shows nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """A guard, how to take it out, and the test files of which one test must notice."""

    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]


class NotApplicable(Exception):
    """The mutation says nothing: its text is not there, or its tests do not run."""


_EKUS = """everybody who trusts the facility.
    ekus=(ExtendedKeyUsageOID.CLIENT_AUTH,{}),"""
_LATE_COMMIT = """            earlier = connection.get_transaction()
            if earlier is not None:
                earlier.commit()
            transaction = connection.begin()
"""
_BINDING_SEEN_FROM_OUTSIDE = (
    "policy/decision.py",
    "    if peer.fingerprint != token.holder:",
    "    if False:",
)

MUTATIONS: tuple[Mutation, ...] = (
    # --- who asks -------------------------------------------------------------------------------------------------------
    Mutation(
        name="proof: signature",
        edits=(
            (
                "certauth/identity/proof.py",
                "    keys.find(proof.kid).verify(proof.signing_input, proof.signature, alg=proof.alg)",
                "    keys.find(proof.kid)",
            ),
        ),
        tests=("tests/certauth/identity/test_proof.py",),
    ),
    Mutation(
        name="proof: replay",
        edits=(
            (
                "signer/writer.py",
                "        if submission.replay is not None and submission.replay.key in self._used:",
                "        if False:",
            ),
            (
                "signer/writer.py",
                '            inserts[REPLAY].append({"key": submission.replay.key, "until": until})',
                "            del until",
            ),
        ),
        tests=("tests/signer/test_ledger.py",),
    ),
    Mutation(
        name="proof: the signer registers what was used",
        edits=(
            (
                "signer/issuing.py",
                "            replay=Replay(key=identity.proof_digest, until=identity.replay_until),",
                "            replay=None,",
            ),
        ),
        tests=("tests/signer/test_issuing.py",),
    ),
    Mutation(
        name="CSR: proof of possession",
        edits=(("certauth/requests.py", " or not csr.is_signature_valid:", ":"),),
        tests=("tests/certauth/test_requests.py",),
    ),
    # --- what is granted ------------------------------------------------------------------------------------------------
    Mutation(
        name="profile: a person's certificate is for clients only",
        edits=(
            (
                "certauth/profiles.py",
                _EKUS.format(""),
                _EKUS.format(" ExtendedKeyUsageOID.SERVER_AUTH,"),
            ),
        ),
        tests=("tests/certauth/test_certificates.py", "tests/certauth/test_profiles.py"),
    ),
    Mutation(
        name="rights: a wish cannot widen",
        edits=(
            (
                "certauth/enrolment.py",
                "    return held if path_covers(wish.path, held.path) else None",
                "    return EnrolledRight(held.service, held.operation, wish.path)",
            ),
        ),
        tests=("tests/certauth/test_issuance.py",),
    ),
    # --- the record -----------------------------------------------------------------------------------------------------
    Mutation(
        name="commit before release: the answer waits for COMMIT",
        edits=(
            (
                "signer/ledger.py",
                "            transaction = connection.begin()\n",
                _LATE_COMMIT,
            ),
            ("signer/ledger.py", "                transaction.commit()\n", "                pass\n"),
        ),
        tests=("tests/faults/test_crash.py", "tests/signer/test_ledger.py"),
    ),
    Mutation(
        name="commit before release: a COMMIT that failed releases nothing",
        edits=(
            (
                "signer/ledger.py",
                "                raise _UnknownOutcome(appended.results, cause_of(error)) from error",
                "                del error",
            ),
        ),
        tests=("tests/faults/test_disk.py",),
    ),
    Mutation(
        name="commit before release: COMMIT waits for the disk",
        edits=(
            (
                "signer/database.py",
                'connection.execute("PRAGMA synchronous=FULL")',
                'connection.execute("PRAGMA synchronous=OFF")',
            ),
            ("signer/database.py", 'if journal != "wal" or synchronous < _SYNCHRONOUS_FULL:', 'if journal != "wal":'),
        ),
        tests=("tests/faults/test_disk.py", "tests/faults/test_crash.py"),
    ),
    Mutation(
        name="record: the database is where it was opened",
        edits=(
            (
                "signer/database.py",
                "        if identity(self.path) != self.database or identity(wal_of(self.path)) != self.wal:",
                "        if False:",
            ),
        ),
        tests=("tests/faults/test_disk.py",),
    ),
    Mutation(
        name="record before permit",
        edits=(
            (
                "policy/middleware.py",
                "            await self._log.record(self._record(scope, headers, judgement, request_id, now))",
                "            self._log.note(self._record(scope, headers, judgement, request_id, now))",
            ),
        ),
        tests=("tests/policy/test_middleware.py",),
    ),
    # --- the door: the certificate --------------------------------------------------------------------------------------
    Mutation(
        name="path validation: presented certificates are no anchors",
        edits=(
            (
                "certauth/bundles.py",
                "Store(list(bundle.x509_roots))",
                "Store([*bundle.x509_roots, *presented])",
            ),
        ),
        tests=("tests/certauth/test_bundles.py",),
    ),
    Mutation(
        name="path validation: the name chooses the bundle",
        edits=(
            (
                "certauth/bundles.py",
                "    entry = entries.get(principal.domain)",
                "    entry = next(iter(entries.values()), None)",
            ),
            (
                "certauth/bundles.py",
                "    if entry is None or entry.bundle.domain != principal.domain:",
                "    if entry is None:",
            ),
        ),
        tests=("tests/certauth/test_bundles.py",),
    ),
    Mutation(
        name="usage: a chain is refused for another purpose",
        edits=(("certauth/bundles.py", "    _check_usage(leaf, principal.kind)\n", ""),),
        tests=("tests/certauth/test_bundles.py",),
    ),
    Mutation(
        name="expiry of the certificate on each request",
        edits=(
            (
                "policy/certificate.py",
                "        if known is not None and known[0].not_before <= now < known[1]:",
                "        if known is not None:",
            ),
        ),
        tests=("tests/policy/test_certificate.py",),
    ),
    Mutation(
        name="revocation of the certificate",
        edits=(
            (
                "policy/certificate.py",
                "        if revoked := state.certificate_revoked(peer):",
                "        if (revoked := state.certificate_revoked(peer)) and now is None:",
            ),
        ),
        tests=("tests/policy/test_certificate.py",),
    ),
    Mutation(
        name="TLS: no resumed session",
        edits=(("policy/tls.py", "        if self.session_reused:", "        if False:"),),
        tests=("tests/policy/test_server.py",),
    ),
    # --- the door: the token --------------------------------------------------------------------------------------------
    Mutation(
        name="binding of the token to the certificate",
        edits=(
            _BINDING_SEEN_FROM_OUTSIDE,
            (
                "certauth/tokens/authorizer.py",
                'builder.add_fact(_fact("peer_cert({v})", peer_fingerprint))',
                'builder.add_fact(_fact("peer_cert({v})", verified.holder))',
            ),
        ),
        tests=("tests/policy/test_decision.py", "tests/policy/test_middleware.py"),
    ),
    Mutation(
        name="audience of the token",
        edits=(
            (
                "certauth/tokens/authorizer.py",
                'builder.add_fact(_fact("service({v})", service))',
                'builder.add_fact(_fact("service({v})", verified.audience[0]))',
            ),
        ),
        tests=("tests/certauth/tokens/test_authorizer.py", "tests/policy/test_decision.py"),
    ),
    Mutation(
        name="issuer of the token is its key's",
        edits=(("certauth/tokens/verify.py", "    if authority.issuer != root.issuer:", "    if False:"),),
        tests=("tests/certauth/tokens/test_verify.py",),
    ),
    Mutation(
        name="user of the token is of its issuer's domain",
        edits=(("certauth/tokens/verify.py", "    if authority.user.domain != root.domain:", "    if False:"),),
        tests=("tests/certauth/tokens/test_verify.py",),
    ),
    Mutation(
        name="signatures of the token",
        edits=(
            (
                "certauth/tokens/verify.py",
                "    biscuit = verify_signatures(data, root.engine_key)",
                "    biscuit = __import__('biscuit_auth').UnverifiedBiscuit.from_bytes(data)",
            ),
        ),
        tests=("tests/certauth/tokens/test_verify.py",),
    ),
    Mutation(
        name="expiry of the token on each request",
        edits=(("policy/token.py", "        if now >= token.expires_at:", "        if False:"),),
        tests=("tests/policy/test_token.py",),
    ),
    Mutation(
        name="revocation of the token",
        edits=(
            (
                "policy/token.py",
                "        if revoked := state.token_revoked(token):",
                "        if (revoked := state.token_revoked(token)) and now is None:",
            ),
        ),
        tests=("tests/policy/test_token.py",),
    ),
    Mutation(
        name="revocation: a feed never goes back",
        edits=(("certauth/revocation.py", "    if feed.sequence < newest_sequence:", "    if False:"),),
        tests=("tests/certauth/test_revocation.py",),
    ),
    Mutation(
        name="revocation: a stale feed stops writing",
        edits=(("policy/decision.py", "            if operation != READ:", "            if False:"),),
        tests=("tests/policy/test_trust.py",),
    ),
    Mutation(
        name="lint: rules",
        edits=(("certauth/tokens/lint.py", "    if block.rules:", "    if False:"),),
        tests=("tests/certauth/tokens/test_lint.py",),
    ),
    Mutation(
        name="lint: combinations of facts",
        edits=(("certauth/tokens/lint.py", "    if work > MAX_JOIN:", "    if False:"),),
        tests=("tests/certauth/tokens/test_lint.py",),
    ),
    Mutation(
        name="lint: size before anything else",
        edits=(
            ("certauth/tokens/codec.py", "    if len(text) > MAX_TEXT:", "    if False:"),
            ("certauth/tokens/codec.py", "    if len(data) > MAX_BYTES:", "    if False:"),
        ),
        tests=("tests/certauth/tokens/test_codec.py",),
    ),
    # --- the door: the decision -----------------------------------------------------------------------------------------
    Mutation(
        name="deny by default",
        edits=(
            (
                "policy/decision.py",
                '        raise _Denied("no-route", f"no route of this service takes {_asked(request)}", status=FORBIDDEN)',
                "        return Permit(held=(), route=policy.routes[0], peer=None, token=None)",
            ),
        ),
        tests=("tests/policy/test_decision.py", "tests/policy/test_middleware.py"),
    ),
    Mutation(
        name="one reading of a path",
        edits=(
            ("policy/request.py", "    if not _CANONICAL.fullmatch(path):", "    if False:"),
            ("policy/request.py", "    elif _ENCODED_SEPARATOR.search(raw_path):", "    elif False:"),
        ),
        tests=("tests/policy/test_request.py",),
    ),
    # --- the evidence ---------------------------------------------------------------------------------------------------
    Mutation(
        name="log: entries are hashed again",
        edits=(
            (
                "certauth/audit/verify.py",
                "    leaves = leaf_hashes(entry.body for entry in batch)",
                "    leaves = [entry.leaf for entry in batch]",
            ),
        ),
        tests=("tests/certauth/audit/test_verify.py",),
    ),
    Mutation(
        name="log: the tree has the root that was signed",
        edits=(("certauth/audit/verify.py", "        if frontier.root() != checkpoint.root:", "        if False:"),),
        tests=("tests/certauth/audit/test_verify.py",),
    ),
    Mutation(
        name="secrets: key files of others' reading are refused",
        edits=(("certauth/files.py", "            if stat.S_IMODE(status.st_mode) & 0o077:", "            if False:"),),
        tests=("tests/certauth/test_files.py",),
    ),
    # --- identity, enrolment, tokens and the user's program: one text each, in ``tests/guards`` ------------------------------
    *(Mutation(name=name, edits=edits, tests=tests) for part in GUARDS.values() for name, edits, tests in part),
)


def copy_tree(target: Path) -> None:
    """The tree as it stands, uncommitted files included and ignored ones not."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


def environment_of(tree: Path) -> dict[str, str]:
    """An environment in which ``tree`` is what is imported, here and in every process that the tests start."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV", "CI"))}
    return {**kept, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}


def check_import(tree: Path) -> None:
    """Raise ``NotApplicable`` unless Python finds the packages in ``tree``."""
    code = "import certauth, policy, signer, sys; print(*(m.__file__ for m in (certauth, policy, signer)), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, env=environment_of(tree), capture_output=True, text=True, check=True
    )
    if not all(line.startswith(f"{tree}/") for line in done.stdout.splitlines()):
        raise NotApplicable(f"the copy is not what is imported: {done.stdout}")


def apply(tree: Path, mutation: Mutation) -> dict[Path, bytes]:
    """Make the edits in ``tree``; return what was there. ``NotApplicable`` if a text is not there exactly once."""
    before: dict[Path, bytes] = {}
    try:
        for name, old, new in mutation.edits:
            path = tree / name
            text = path.read_text(encoding="utf-8")
            if text.count(old) != 1:
                raise NotApplicable(f"{name} has {text.count(old)} times, not once: {old.strip()!r}")
            before.setdefault(path, path.read_bytes())
            path.write_text(text.replace(old, new), encoding="utf-8")
    except NotApplicable:
        restore(before)
        raise
    return before


def restore(before: dict[Path, bytes]) -> None:
    """Undo ``apply``."""
    for path, data in before.items():
        path.write_bytes(data)


def run_tests(tree: Path, tests: tuple[str, ...]) -> tuple[int, str, str]:
    """Exit status of pytest, the first test that failed, and its output."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:randomly", *tests]
    done = subprocess.run(
        command, cwd=tree, env=environment_of(tree), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    found = _FAILED.search(done.stdout)
    return done.returncode, found[1] if found else "", done.stdout + done.stderr


def killed_by(tree: Path, mutation: Mutation) -> str | None:
    """The test that notices the mutation; ``None`` if none does. ``NotApplicable`` if the tests cannot tell."""
    before = apply(tree, mutation)
    try:
        status, failed, output = run_tests(tree, mutation.tests)
    finally:
        restore(before)
    if status == 0:
        return None
    if found := _SLIP.search(output):
        raise NotApplicable(f"the mutation does not run: {found[0]}")
    if status != 1 or "::" not in failed:
        raise NotApplicable(f"the tests did not run (pytest ended with {status}): {output[-2000:]}")
    return failed


def sound(tree: Path, tests: tuple[str, ...]) -> None:
    """Raise ``NotApplicable`` if the tests fail in the unchanged copy: then a failure would show nothing."""
    status, failed, output = run_tests(tree, tests)
    if status != 0:
        raise NotApplicable(f"without any mutation {failed or tests} fails: {output[-2000:]}")


def main(arguments: list[str] | None = None) -> int:
    """0 if every chosen mutation makes a test fail."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="guards whose name contains it")
    parser.add_argument("--list", action="store_true", help="name the guards and stop")
    parser.add_argument("--no-baseline", action="store_true", help="do not first run the tests without a mutation")
    chosen = parser.parse_args(arguments)
    wanted = [each for each in MUTATIONS if not chosen.only or any(word in each.name for word in chosen.only)]
    if chosen.list:
        print(*(each.name for each in wanted), sep="\n")
        return 0
    if not wanted:
        print("there is no such guard", file=sys.stderr)
        return 2
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is started without it
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as directory:
        tree = Path(directory).resolve()
        copy_tree(tree)
        check_import(tree)
        unsound: dict[str, str] = {}
        if not chosen.no_baseline:
            for file in sorted({file for each in wanted for file in each.tests}):
                try:
                    sound(tree, (file,))
                except NotApplicable as error:
                    unsound[file] = str(error)
                    print(f"NOT SOUND  {file}\n{error}", flush=True)
        for each in wanted:
            started = time.monotonic()
            try:
                if bad := [file for file in each.tests if file in unsound]:
                    raise NotApplicable(f"{', '.join(bad)} fails without it")
                test = killed_by(tree, each)
                verdict = "caught" if test else "SURVIVED"
            except (NotApplicable, subprocess.TimeoutExpired) as error:
                verdict, test = "BROKEN", str(error)
            wrong += verdict != "caught"
            files = ", ".join(dict.fromkeys(edit[0] for edit in each.edits))
            print(f"{verdict:9} {each.name:58} {files:44} {test or ''}  ({time.monotonic() - started:.0f} s)", flush=True)
    print(f"{len(wanted) - wrong} of {len(wanted)} guards are missed by a test when they are gone")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
