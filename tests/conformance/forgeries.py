"""Tokens that nobody signed as they are, by the ways in which JWS libraries have been deceived, all made from genuine ones.

The families are those of Project Wycheproof's JWS files, whose data this project does not carry, and a few more. A provider
publishes one key; everything here is made without it, or with another of its tokens. Where joserfc, an independent library,
takes what we refuse, the family says so: it is looser there, and we are not (RFC 7515 §2, §4.1, RFC 7518 §3.4).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from functools import cache

from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certauth.encoding import b64url, from_b64url
from tests.simulator.hostile_provider import ProviderKey

_LOW = "A51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409"
ORDERS = {
    "ES256": (32, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551),
    "ES384": (48, 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973),
    "ES512": (66, int("1" + "F" * (130 - len(_LOW)) + _LOW, 16)),
}
"""For each curve, the bytes of a number and the order of its base point (FIPS 186-5)."""
HASHES: dict[str, type[HashAlgorithm]] = {"256": SHA256, "384": SHA384, "512": SHA512}
ALGORITHMS = (*ORDERS, "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA")
CLAIMS = {"iss": "https://idp.example", "sub": "alice"}

made = cache(ProviderKey)
"""A key is costly and is made once for each algorithm and id."""


class Genuine:
    """A token as the provider makes it, taken apart."""

    def __init__(self, key: ProviderKey) -> None:
        self.key = key
        self.token = key.sign(CLAIMS, key.header(alg=name_of(key.alg)))
        self.header, self.payload, self.signature = (from_b64url(part) for part in self.token.split("."))
        self.said = json.loads(self.header)

    def with_signature(self, signature: bytes) -> str:
        """The same words under another signature."""
        return f"{self.token.rpartition('.')[0]}.{b64url(signature)}"

    def with_header(self, **changes: object) -> str:
        """Another header over the same signature."""
        return joined(self.key.header(**{"alg": self.said["alg"], **changes}), self.payload, self.signature)

    def signed(self, header: bytes, payload: bytes | None = None) -> str:
        """Genuinely signed: such a token is refused for how it says what it says."""
        return self.key.sign(self.payload if payload is None else payload, header)


def name_of(alg: str) -> str:
    """How an algorithm is written by now (RFC 9864)."""
    return "Ed25519" if alg == "EdDSA" else alg


def joined(header: object, payload: bytes, signature: bytes) -> str:
    """A token of these parts."""
    return ".".join(map(b64url, (json.dumps(header).encode(), payload, signature)))


# --- signatures ---------------------------------------------------------------------------------------------------------


def other_signatures(good: Genuine) -> Iterator[str]:
    """Cut at either end, with bytes more, with a bit changed anywhere, of nothing but zeros, and doubled."""
    signature = good.signature
    for size in (1, len(signature) // 2, len(signature) - 1):
        yield good.with_signature(signature[:size])
        yield good.with_signature(signature[-size:])
    for more in (b"\0", b"\0" * 16, signature):
        yield good.with_signature(signature + more)
        yield good.with_signature(more + signature)
    for place in range(0, len(signature), 7):
        yield good.with_signature(signature[:place] + bytes((signature[place] ^ 1,)) + signature[place + 1 :])
    for byte in (0, 1, 255):
        yield good.with_signature(bytes([byte]) * len(signature))
    yield f"{good.token.rpartition('.')[0]}."


def other_numbers(good: Genuine) -> Iterator[str]:
    """ECDSA with zero, the order or more in it, with numbers too short or too long, and as DER instead of side by side."""
    if good.key.alg not in ORDERS:
        return
    size, order = ORDERS[good.key.alg]
    r, s = int.from_bytes(good.signature[:size]), int.from_bytes(good.signature[size:])
    most = 256**size - 1
    for one, two in ((0, 0), (0, s), (r, 0), (1, 1), (order, s), (r, order), (order, order), (r, order - 1), (most, most)):
        yield good.with_signature(one.to_bytes(size) + two.to_bytes(size))
    for one, two in ((r + order, s), (r, s + order), (r, -s % order + order)):
        if max(one, two) <= most:
            yield good.with_signature(one.to_bytes(size) + two.to_bytes(size))
    yield good.with_signature(r.to_bytes(size + 1) + s.to_bytes(size + 1))
    yield good.with_signature(encode_dss_signature(r, s))
    yield good.with_signature(s.to_bytes(size) + r.to_bytes(size))


def other_paddings(good: Genuine) -> Iterator[str]:
    """RSA: the other padding, another hash, another length of salt, SHA-1 — each genuinely signed with the provider's key."""
    if good.key.alg[:2] not in ("RS", "PS"):
        return
    words, right = good.token.rpartition(".")[0].encode(), HASHES[good.key.alg[2:]]
    for kind in (SHA1, SHA256, SHA384, SHA512):
        if (kind, good.key.alg[:2]) != (right, "RS"):
            yield good.with_signature(good.key.private.sign(words, padding.PKCS1v15(), kind()))
        for salt in (0, 20, 32, 48, 64):
            if (kind, good.key.alg[:2], salt) != (right, "PS", right.digest_size):
                pss = padding.PSS(padding.MGF1(kind()), salt)
                yield good.with_signature(good.key.private.sign(words, pss, kind()))


def other_keys(good: Genuine) -> Iterator[str]:
    """Signed with somebody's own key of the same kind, under the provider's key id; the key may come along in the header."""
    own = made(good.key.alg, "key-2")
    header = good.key.header(alg=name_of(good.key.alg))
    yield own.sign(CLAIMS, header)
    for brought in (
        {"jwk": own.jwk},
        {"jku": "https://evil.example/jwks"},
        {"x5c": ["AAAA"]},
        {"x5u": "https://evil.example/c"},
    ):
        yield own.sign(CLAIMS, {**header, **brought})
    yield own.sign(CLAIMS, {**header, "kid": own.kid})


# --- headers ------------------------------------------------------------------------------------------------------------


def no_algorithm(good: Genuine) -> Iterator[str]:
    """``none`` in every spelling, with the signature, with another, and without one."""
    for name in ("none", "None", "NONE", "nOnE", "", None, ["none"], 0):
        for signature in (b"", good.signature, b"x"):
            yield joined(good.key.header(alg=name), good.payload, signature)
    yield joined(good.key.header(alg=...), good.payload, good.signature)


def hmac_with_the_public_key(good: Genuine) -> Iterator[str]:
    """HMAC keyed with what everybody knows: the public key as PEM, DER, JWK or raw, and with nothing."""
    public = good.key.private.public_key()
    known = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).rstrip(),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(good.key.jwk).encode(),
        *(from_b64url(good.key.jwk[name]) for name in ("n", "x") if name in good.key.jwk),
        b"",
    ]
    for name, kind in (("HS256", hashlib.sha256), ("HS384", hashlib.sha384), ("HS512", hashlib.sha512)):
        words = f"{b64url(json.dumps(good.key.header(alg=name)).encode())}.{b64url(good.payload)}"
        for secret in known:
            yield f"{words}.{b64url(hmac.digest(secret, words.encode(), kind))}"


def other_algorithms(good: Genuine) -> Iterator[str]:
    """The header names another algorithm than that which signed; or the right one in another case; genuinely signed as well."""
    own = {good.key.alg, name_of(good.key.alg)}
    for name in (
        *ALGORITHMS,
        "HS256",
        "ES256K",
        "EdDSA ",
        good.key.alg.lower(),
        f" {good.key.alg}",
        "RSA-OAEP",
        "dir",
    ):
        if name not in own:
            yield good.with_header(alg=name)
            yield good.signed(json.dumps(good.key.header(alg=name)).encode())


def extensions(good: Genuine) -> Iterator[str]:
    """``crit`` of any kind, an unencoded payload (RFC 7797), compression, encryption: genuinely signed, and never followed."""
    for more in (
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": "b64"},
        {"b64": False, "crit": ["b64"]},
        {"zip": "DEF"},
        {"enc": "A128GCM"},
    ):
        yield good.signed(json.dumps({**good.said, **more}).encode())
    words = f"{b64url(json.dumps({**good.said, 'b64': False, 'crit': ['b64']}).encode())}.{good.payload.decode()}"
    yield f"{words}.{b64url(good.signature)}"


def said_twice(good: Genuine) -> Iterator[str]:
    """A member twice, in the header or in the claims, so that two readers may see two tokens: genuinely signed."""
    for name, value in (("alg", "none"), ("kid", "key-2"), ("typ", "x"), ("a\\u006cg", "none")):
        yield good.signed(b'{"%s":"%s",%s' % (name.encode(), value.encode(), good.header[1:]))
        yield good.signed(good.header[:-1] + b',"%s":"%s"}' % (name.encode(), value.encode()))
    yield good.signed(good.header, b'{"sub":"mallory",' + good.payload[1:])


def no_object(good: Genuine) -> Iterator[str]:
    """Header or claims that are no object, not strict JSON, or not UTF-8: genuinely signed."""
    for text in (
        b"",
        b"[]",
        b"null",
        b'"alg"',
        b"{",
        b"\xff",
        b"\xef\xbb\xbf" + good.header,
        good.header + b"x",
        good.header * 2,
    ):
        yield good.signed(text)
        yield good.signed(good.header, text)
    yield good.signed(good.header[:-1] + b",}")
    yield good.signed(good.header, good.payload[:-1] + b',"n":NaN}')


# --- spelling -----------------------------------------------------------------------------------------------------------


def other_base64(good: Genuine) -> Iterator[str]:
    """Padding, the other alphabet, spaces and line ends, foreign characters and loose bits, in any of the three parts."""
    parts = good.token.split(".")
    for which in range(3):
        part = parts[which]
        loose = part[:-1] + chr(ord(part[-1]) + 1) if len(part) % 4 else part + "A"
        cut = len(part) // 2
        for other in (
            *(f"{part}{'=' * count}" for count in (1, 2, 3, 4)),
            *(f"{part[:cut]}{odd}{part[cut:]}" for odd in " \t\n\r\0=+/*~€"),
            *(f"{odd}{part}" for odd in " \n="),
            *(f"{part}{odd}" for odd in " \n\r\n"),
            loose,
            base64.b64encode(from_b64url(part)).decode() + "=",
        ):
            yield ".".join((*parts[:which], other, *parts[which + 1 :]))


def other_shapes(good: Genuine) -> Iterator[str]:
    """Parts missing, empty, or one too many; the JSON serialisations (RFC 7515 §7.2); an encrypted token's five parts."""
    first, second, third = good.token.split(".")
    flat = {"protected": first, "payload": second, "signature": third}
    yield from (f"{first}.{second}", f".{second}.{third}", f"{first}..{third}", f"{first}.{second}.", "..", ".", "")
    yield from (f"{good.token}.", f".{good.token}", f"{good.token}.{third}", f"{first}.{second}.{second}.{third}", "a.b.c.d.e")
    yield from (
        json.dumps(flat),
        json.dumps({"payload": second, "signatures": [flat]}),
        f'"{good.token}"',
        f"Bearer {good.token}",
    )


def mixed_up(good: Genuine) -> Iterator[str]:
    """The parts of two genuine tokens of the same key, joined."""
    other = good.key.sign({**CLAIMS, "sub": "mallory"}, good.said)
    mine, theirs = good.token.split("."), other.split(".")
    yield f"{mine[0]}.{theirs[1]}.{mine[2]}"
    yield f"{mine[0]}.{mine[1]}.{theirs[2]}"


# --- what is published --------------------------------------------------------------------------------------------------


def other_key_sets(key: ProviderKey) -> Iterator[list[dict[str, object]]]:
    """Sets in which the key that genuinely signed is not to be used: ambiguous, secret, for something else, or another."""
    good, other = key.jwk, made(key.alg, "key-2").jwk
    same_id = {**other, "kid": good["kid"]}
    yield from ([], [other], [same_id])
    yield from ([good, good], [good, same_id], [same_id, good], [good, {"kty": "oct", "kid": good["kid"], "k": "AAAA"}])
    uses = ({"use": "enc"}, {"key_ops": ["sign"]}, {"key_ops": []})
    for more in (*uses, {"alg": "HS256"}, {"alg": "none"}, {"alg": 1}, {"kty": "oct"}):
        yield [{**good, **more}]
    for secret in ("d", "p", "q", "k"):
        yield [{**good, secret: "AAAA"}]
    numbers = [name for name in ("n", "x", "y") if name in good]
    yield from ([{**good, name: "AAAA"}] for name in numbers)
    yield from ([{**good, name: f"{good[name]}="}] for name in numbers)
    yield from ([{**good, "crv": name}] for name in ("P-256K", "secp256k1", "X25519", "Ed448") if "crv" in good)
    for left in ("kty", "crv", *numbers):
        if left in good:
            yield [{name: value for name, value in good.items() if name != left}]


Family = Callable[[Genuine], Iterator[str]]
FAMILIES: dict[str, Family] = {
    family.__name__: family
    for family in (
        *(other_signatures, other_numbers, other_paddings, other_keys, no_algorithm, hmac_with_the_public_key),
        *(other_algorithms, extensions, said_twice, no_object, other_base64, other_shapes, mixed_up),
    )
}
