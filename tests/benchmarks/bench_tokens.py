"""What making, verifying and evaluating a token costs: against the bare engine on the same tokens, and against JWT libraries.

The tokens are all different (ids, users, times, groups, rights), as they are for a door that meets them for the first time.
Other formats carry the same claims. What is a command is measured as one: wall time of a process, imports included.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import jwt
from biscuit_auth import Biscuit, BiscuitBuilder, BlockBuilder, KeyPair, PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from scitokens import Enforcer, SciToken  # type: ignore[import-untyped]

from certauth.clock import system_clock
from certauth.errors import TokenError
from certauth.keys import Algorithm, SoftwareKey, generate
from certauth.tokens.attenuate import attenuate
from certauth.tokens.authorizer import evaluate
from certauth.tokens.codec import from_text, to_text
from certauth.tokens.delegate import delegate
from certauth.tokens.engine import Builder
from certauth.tokens.mint import mint
from certauth.tokens.verify import verify
from certauth.tokens.vocabulary import Narrowing, Right
from policy.testing import Facility as TrustedFacility
from policy.token import TokenVerifier
from tests.certauth.tokens.kit import ALICE, BOB, NOW, Facility
from tests.certauth.tokens.test_hostile import BOMBS, appended, with_rights

TOKENS = 200
RUNS = 9
COMMANDS = 11
COMMAND_BAR_MS = 250.0
BOMB_BAR_MS = 1.0

Result = dict[str, object]


def _cpu(action: Callable[[], object]) -> float:
    """CPU seconds of this thread for one call: a neighbour's load does not count."""
    begin = time.thread_time()
    action()
    return time.thread_time() - begin


def _ratios(ours: Callable[[], object], bare: Callable[[], object]) -> list[float]:
    """How many times ``bare`` each of ``ours`` takes, run in turn; the first round warms up."""
    return [_cpu(ours) / _cpu(bare) for _ in range(RUNS + 1)][1:]


def _result(name: str, ours: Callable[[], object], bare: Callable[[], object], *, bar: float, versus: str) -> Result:
    ratios = _ratios(ours, bare)
    value = statistics.median(ratios)
    return {
        "name": name,
        "value": round(value, 3),
        "unit": "x",
        "bar": f"<= {bar}",
        "holds": value <= bar,
        "runs": len(ratios),
        "versus": versus,
    }


@cache
def _facility() -> Facility:
    return Facility()


def _claims(number: int) -> dict[str, Any]:
    """What one of the tokens states: a few groups and rights."""
    facility = _facility()
    return {
        "jti": f"{number:032x}",
        "user": f"{facility.issuer}/user/user-{number}",
        "issued_at": NOW + timedelta(seconds=number),
        "expires_at": NOW + timedelta(hours=1, seconds=number),
        "groups": tuple(f"group-{group}" for group in range(number % 3)),
        "rights": tuple(Right("files", operation, f"/data/p-{number}/") for operation in ("read", "write")[: 1 + number % 2]),
        "delegate_key": facility.holder.public_key,
    }


def _narrowing(number: int, block: int = 1) -> Narrowing:
    """Reading one subtree for a while."""
    end = NOW + timedelta(minutes=20 - block, seconds=number)
    return Narrowing(operations=("read",), paths=(f"/data/p-{number}/" + "run7/" * block,), expires_at=end)


@cache
def _tokens(blocks: int) -> tuple[bytes, ...]:
    """Tokens of so many blocks, as people have them."""
    tokens = []
    for number in range(TOKENS):
        token = _facility().mint(**_claims(number))
        for block in range(1, blocks):
            token = attenuate(token, _narrowing(number, block))
        tokens.append(token)
    return tuple(tokens)


def _texts(blocks: int) -> list[str]:
    return [to_text(token) for token in _tokens(blocks)]


def _verifying(blocks: int) -> Callable[[], None]:
    """Text to verified token, lint included: what a door does with a token it has not seen."""
    texts, roots = _texts(blocks), _facility().roots

    def action() -> None:
        for text in texts:
            verify(text, roots)

    return action


def cold_verification(blocks: int) -> Result:
    """Text to verified token, lint included, against the engine's parsing and signature verification alone."""
    texts, key = _texts(blocks), _facility().roots[_facility().kid].engine_key

    def bare() -> None:
        for text in texts:
            Biscuit.from_base64(text, key)

    name = f"token-verify-cold-{blocks}-block{'s' if blocks > 1 else ''}"
    versus = "biscuit-python parsing and verifying the same tokens"
    # What the authority states is read once, however many blocks there are: the fewer, the more it weighs.
    return _result(name, _verifying(blocks), bare, bar=3.0 if blocks == 1 else 2.0, versus=versus)


def against_signatures() -> Result:
    """Two blocks from text to verified token, against the Ed25519 verifications that OpenSSL would need for them."""
    facility = _facility()
    signature, public = facility.root.sign(b"data"), facility.root.public_key

    def bare() -> None:
        for _ in range(TOKENS * 2):
            public.verify(signature, b"data")  # type: ignore[union-attr, call-arg]  # it is Ed25519

    versus = "2 bare Ed25519 verifications by OpenSSL"
    return _result("token-verify-cold-2-blocks-signatures", _verifying(2), bare, bar=2.5, versus=versus)


def cached_verification() -> Result:
    """A token that the door has seen before, dates and revocation looked at again, against one Ed25519 verification."""
    facility = TrustedFacility("als.example")
    peer = facility.peer("alice")
    texts = [facility.token(peer, "data", rights=(f"read /p-{number}/",)) for number in range(TOKENS)]
    verifier, now = TokenVerifier(facility.trust()), system_clock()
    signature, public = _facility().root.sign(b"data"), _facility().root.public_key

    def ours() -> None:
        for text in texts:
            verifier.verify(text, now=now)

    def bare() -> None:
        for _ in range(TOKENS):
            public.verify(signature, b"data")  # type: ignore[union-attr, call-arg]  # it is Ed25519

    return _result("token-verify-cached", ours, bare, bar=0.5, versus="1 bare Ed25519 verification by OpenSSL")


def _jwt_claims(number: int) -> dict[str, Any]:
    """The same statements in the registered claims of a JWT, for as long as this run takes."""
    claims = _claims(number)
    now = int(time.time())
    scope = " ".join(f"storage.{right.operation}:{right.path}" for right in claims["rights"])
    return {
        "iss": "https://als.example",
        "sub": claims["user"],
        "aud": "files",
        "jti": claims["jti"],
        "iat": now,
        "nbf": now - 60,
        "exp": now + 3600,
        "groups": list(claims["groups"]),
        "scope": scope,
        "ver": "scitoken:2.0",
        "cnf": {"x5t#S256": ALICE},
    }


def _pem(key: SoftwareKey) -> tuple[bytes, bytes]:
    private = key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return private, public


def against_pyjwt(algorithm: str, kind: Algorithm, *, bar: float) -> Result:
    """One block from text to verified token, against PyJWT decoding a JWT of the same claims."""
    key = generate(kind)
    texts = [jwt.encode(_jwt_claims(number), key.private_key, algorithm) for number in range(TOKENS)]
    public = key.private_key.public_key()

    def bare() -> None:
        for text in texts:
            jwt.decode(text, public, algorithms=[algorithm], audience="files")

    name = f"token-verify-cold-pyjwt-{algorithm.lower()}"
    return _result(name, _verifying(1), bare, bar=bar, versus=f"PyJWT decoding {algorithm} with the same claims")


def against_scitokens() -> Result:
    """One block, verified and a request decided, against SciTokens doing both with a token of the same claims."""
    private, public = _pem(generate(Algorithm.P256))
    texts = [jwt.encode(_jwt_claims(number), private, "ES256") for number in range(TOKENS)]
    enforcer = Enforcer("https://als.example", audience="files")
    ours_texts, roots = _texts(1), _facility().roots
    now = NOW + timedelta(seconds=TOKENS)

    def ours() -> None:
        for number, text in enumerate(ours_texts):
            _evaluated(verify(text, roots), number, now)

    def bare() -> None:
        for number, text in enumerate(texts):
            token = SciToken.deserialize(text, audience="files", public_key=public)
            if not enforcer.test(token, "storage.read", f"/data/p-{number}/run7/a"):
                raise RuntimeError("SciTokens should allow this")

    versus = "SciTokens deserialising and enforcing ES256"
    return _result("token-verify-and-evaluate-scitokens", ours, bare, bar=1.5, versus=versus)


def minting() -> Result:
    """From a specification to a token, linted, against the engine building and signing the same facts and checks."""
    facility = _facility()
    specs = [facility.spec(**_claims(number)) for number in range(TOKENS)]
    sources = [Biscuit.from_bytes(token, facility.roots[facility.kid].engine_key).block_source(0) for token in _tokens(1)]
    root = PrivateKey.from_pem(_pem(facility.root)[0].decode())  # type: ignore[attr-defined]  # the binding's stubs lack it

    def ours() -> None:
        for spec in specs:
            to_text(mint(spec, facility.root))

    def bare() -> None:
        for source in sources:
            BiscuitBuilder(source).build(root).to_base64()

    return _result("token-mint", ours, bare, bar=6.0, versus="biscuit-python, from text that it parses")


def attenuation() -> Result:
    """From text to narrower text, linted before and after, against the engine doing so with the issuer's key."""
    texts, key = _texts(1), _facility().roots[_facility().kid].engine_key
    narrowings = [_narrowing(number) for number in range(TOKENS)]
    sources = [Biscuit.from_bytes(token, key).block_source(1) for token in _tokens(2)]

    def ours() -> None:
        for text, narrowing in zip(texts, narrowings, strict=True):
            to_text(attenuate(from_text(text), narrowing))

    def bare() -> None:
        for text, source in zip(texts, sources, strict=True):
            Biscuit.from_base64(text, key).append(BlockBuilder(source)).to_base64()

    return _result("token-attenuate", ours, bare, bar=3.0, versus="biscuit-python parsing, verifying and appending")


def delegation() -> Result:
    """From a token to one in other hands, signed with the holder's P-256 key, against the engine's third-party block."""
    facility = _facility()
    tokens, key = _tokens(1), facility.roots[facility.kid].engine_key
    private = PrivateKey.from_pem(_pem(facility.holder)[0].decode())  # type: ignore[attr-defined]
    public = KeyPair.from_private_key(private).public_key
    source = f'delegate("{BOB}"); check if peer_cert("{BOB}");'

    def ours() -> None:
        for token in tokens:
            delegate(token, holder_key=facility.holder, to_certificate=BOB)

    def bare() -> None:
        for token in tokens:
            biscuit = Biscuit.from_bytes(token, key)
            block = biscuit.third_party_request().create_block(private, BlockBuilder(source))
            biscuit.append_third_party(public, block).to_bytes()

    return _result("token-delegate", ours, bare, bar=3.0, versus="biscuit-python appending a third-party block")


_BARE = """
    time({now}); service("files"); operation("read"); path({path}); peer_cert({peer}); client_ip4({address});
    uid({issuer}, {user}); tree({below});
    allow if uid($i, $u), service($s), operation($o), path($p), right($s, $o, $p);
    allow if uid($i, $u), service($s), operation($o), path($p), right($s, $o, $t), tree($t), $p.starts_with($t);
    deny if true;
"""


def _evaluated(token: Any, number: int, now: Any, file: str = "a") -> None:
    evaluate(
        token,
        now=now,
        service="files",
        operation="read",
        path=f"/data/p-{number}/run7/{file}",
        peer_fingerprint=ALICE,
        client_address="10.1.2.3",
    )


def evaluation(*, repeated: bool) -> Result:
    """Evaluating a request with a verified token, against the engine with the same facts and policies given as text.

    ``repeated`` requests are equal, as are many within one second; otherwise each is about another path.
    """
    verified = [verify(text, _facility().roots) for text in _texts(2)]
    now = NOW + timedelta(seconds=TOKENS)
    files = itertools.count()

    limits = Builder().limits()
    limits.max_time = timedelta(seconds=1)

    def ours() -> None:
        for number, token in enumerate(verified):
            _evaluated(token, number, now, "a" if repeated else f"{next(files)}")

    def bare() -> None:
        for number, token in enumerate(verified):
            values = {
                "now": now,
                "path": f"/data/p-{number}/run7/a",
                "peer": ALICE,
                "address": int(IPv4Address("10.1.2.3")),
                "issuer": token.issuer,
                "user": token.user,
                "below": f"/data/p-{number}/",
            }
            builder = Builder(_BARE, values)
            builder.set_limits(limits)  # at its default of 1 ms a busy machine refuses now and then
            builder.build(token.biscuit).authorize()

    versus = "biscuit-python with facts and policies as parameterised text"
    name = "token-evaluate-repeated" if repeated else "token-evaluate"
    return _result(name, ours, bare, bar=0.25 if repeated else 1.0, versus=versus)


def refused_bombs() -> Result:
    """Reading and refusing the costliest of the tokens that would burn time: the median of its runs."""
    facility = _facility()
    tokens = [appended(facility, with_rights(facility), source) for source in BOMBS.values()]
    times = [statistics.median(_cpu(lambda token=token: _refused(token)) for _ in range(RUNS * 5)) for token in tokens]
    value = max(times) * 1000
    return {
        "name": "token-refuse-bomb",
        "value": round(value, 2),
        "unit": "ms CPU",
        "bar": f"<= {BOMB_BAR_MS}",
        "holds": value <= BOMB_BAR_MS,
        "runs": RUNS * 5,
        "versus": f"the costliest of {len(tokens)} families; evaluated, each would burn seconds or more",
    }


def _refused(token: bytes) -> None:
    try:
        verify(to_text(token), _facility().roots)
    except TokenError:
        return
    raise RuntimeError("a bomb was let in")


def attenuate_command() -> Result:
    """``certauth token attenuate`` as a user runs it: wall time from start to the narrower token, median of several."""
    program = Path(sys.executable).with_name("certauth")
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "token"
        file.write_text(_texts(1)[0] + "\n", encoding="ascii")
        file.chmod(0o600)
        command = [program, "token", "attenuate", str(file), "--read", "/data/p-0/run7/"]
        bare = [sys.executable, "-c", "pass"]
        pairs = [(_wall(command), _started(bare)) for _ in range(COMMANDS + 1)][1:]
    times = [ours for ours, _ in pairs]
    value, ratio = statistics.median(times) * 1000, statistics.median(ours / other for ours, other in pairs)
    return {
        "name": "token-attenuate-command",
        "value": round(value, 1),
        "unit": "ms wall",
        "bar": f"<= {COMMAND_BAR_MS}",
        "holds": value <= COMMAND_BAR_MS,
        "runs": len(times),
        "versus": f"the command's start to its end: {ratio:.1f} times that of 'python -c pass'",
    }


def _started(command: Sequence[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    return time.perf_counter() - begin


def _wall(command: Sequence[str | Path]) -> float:
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    spent = time.perf_counter() - begin
    if done.returncode or not from_text(done.stdout.strip()):
        raise RuntimeError(f"the command failed: {done.stderr}")
    return spent


def measurements() -> Iterator[Result]:
    """All of them."""
    for blocks in (1, 2, 5):
        yield cold_verification(blocks)
    yield against_signatures()
    yield cached_verification()
    yield against_pyjwt("ES256", Algorithm.P256, bar=3.0)
    yield against_pyjwt("EdDSA", Algorithm.ED25519, bar=2.0)
    yield against_scitokens()
    yield minting()
    yield attenuation()
    yield delegation()
    yield evaluation(repeated=False)
    yield evaluation(repeated=True)
    yield refused_bombs()
    yield attenuate_command()
