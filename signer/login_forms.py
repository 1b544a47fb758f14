"""Forms that only our own pages can send.

A foreign page could otherwise type the code for its visitor, who would no longer know what they are doing. A cookie that goes
along with requests from our own pages only (``SameSite=Strict``) has to fit a field of the form, and what the browser says
about the origin has to be ours.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Final, Literal
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from certauth.encoding import b64url
from certauth.errors import Refused, RequestError
from signer.limits import read_body

FORM_COOKIE: Final = "__Host-certauth-form"
_COOKIE_LENGTH: Final = 43
_COOKIE_SECONDS: Final = 3600
_MAX_FORM: Final = 4096
_MAX_FIELDS: Final = 8
_TAG: Final = b"certauth/v1 login form\x00"


def form_cookie(request: Request, entropy: Callable[[int], bytes]) -> str:
    """The browser's cookie for our forms, or a new one."""
    known = request.cookies.get(FORM_COOKIE, "")
    return known if len(known) == _COOKIE_LENGTH else b64url(entropy(32))


def form_value(cookie: str) -> str:
    """What the forms of the browser with this cookie carry in their field ``form``."""
    return b64url(hashlib.sha256(_TAG + cookie.encode("utf-8", "replace")).digest())


def keep_form_cookie(response: Response, cookie: str) -> None:
    """Let the browser send ``cookie`` along with its next forms."""
    set_cookie(response, FORM_COOKIE, cookie, seconds=_COOKIE_SECONDS, same_site="Strict")


def set_cookie(response: Response, name: str, value: str, *, seconds: int, same_site: Literal["Strict", "Lax"]) -> None:
    """A ``__Host-`` cookie (RFC 6265bis §4.1.3.2): for this origin only, and out of reach of scripts."""
    cookie = f"{name}={value}; Path=/; Secure; HttpOnly; SameSite={same_site}; Max-Age={seconds}"
    response.headers.append("set-cookie", cookie)


async def own_form(request: Request, *, public_url: str) -> Mapping[str, str]:
    """The fields of a form that one of our pages sent.

    Raises ``RequestError`` (``form-malformed``, and as ``read_body``) or ``Refused`` (``form-foreign``).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await read_body(request, limit=_MAX_FORM)
    try:
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise malformed("it cannot be read") from error
    fields = dict(pairs)
    if kind != "application/x-www-form-urlencoded" or len(fields) != len(pairs):
        raise malformed("it is of another kind, or says something twice")
    cookie, value = request.cookies.get(FORM_COOKIE, ""), fields.get("form", "")
    fits = len(cookie) == _COOKIE_LENGTH and hmac.compare_digest(value.encode(), form_value(cookie).encode())
    # Our own pages say "null" in Origin, too, as they tell nobody where they are; Sec-Fetch-Site is what browsers say then.
    ours = request.headers.get("origin", "null") in (public_url, "null")
    same = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
    if not (fits and ours and same):
        raise Refused(
            "form-foreign",
            "what arrived was not sent from this page",
            hint="open the address that your terminal shows, and let the page set cookies",
        )
    return fields


def malformed(why: str) -> RequestError:
    """The refusal of what is not the form we sent."""
    return RequestError("form-malformed", f"the form cannot be used: {why}", hint="use the page's own form and buttons")
