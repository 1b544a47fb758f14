"""The pages of a mediated login: plain HTML without scripts, everything in them escaped, readable on a telephone.

What a page holds is decided here and nowhere else, and so is what it may do: its content security policy allows one style
sheet, known by its hash, and forms that go to this signer. The confirmation page is what stands between a person and a login
that somebody else began (RFC 8628 §5.4): it says whose machine will act as them before they log in anywhere.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from html import escape
from typing import Final
from urllib.parse import urlsplit

from certauth.clock import in_words
from signer.login_state import Confirmation

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8888; --mark: #0a5bd0; --warn: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --mark: #7ab2ff; --warn: #ff9d94; } }
* { box-sizing: border-box; }
body { font: 1.0625rem/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 34rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 1rem; }
label { display: block; font-weight: 600; margin-bottom: .35rem; }
input[type=text] { font: 1.6rem/1.2 ui-monospace, monospace; letter-spacing: .12em; width: 100%; padding: .6rem .7rem;
  border: 2px solid var(--line); border-radius: .5rem; text-transform: uppercase; }
dl { border: 1px solid var(--line); border-radius: .5rem; margin: 1rem 0; padding: .25rem 1rem .75rem; }
dt { font-size: .875rem; opacity: .8; margin-top: .6rem; }
dd { margin: 0; overflow-wrap: anywhere; }
dd b, code { font-family: ui-monospace, monospace; }
blockquote { margin: 1rem 0; padding-left: 1rem; border-left: 3px solid var(--line); overflow-wrap: anywhere; }
button { font: inherit; font-weight: 600; padding: .75rem 1.25rem; border-radius: .5rem; width: 100%; margin-top: .75rem;
  border: 2px solid var(--mark); color: var(--mark); background: transparent; cursor: pointer; }
button.no { border-color: var(--warn); color: var(--warn); }
button:focus-visible, input:focus-visible { outline: 3px solid var(--mark); outline-offset: 2px; }
.warn { border-left: 4px solid var(--warn); padding-left: .9rem; }
.small { font-size: .875rem; opacity: .8; }
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facility:
    """Who grants what: the facility's name, and how long its certificates for people last at most."""

    name: str
    certificate_lifetime: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page, and where its form may lead to."""

    html: str
    form_action: str = "'none'"

    def headers(self) -> dict[str, str]:
        """What the browser may do with it: next to nothing, not keep it, and tell nobody where it came from."""
        policy = (
            f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action {self.form_action}; "
            "frame-ancestors 'none'; base-uri 'none'"
        )
        return {"content-security-policy": policy, "x-frame-options": "DENY", **SAFE_HEADERS}


SAFE_HEADERS: Final[Mapping[str, str]] = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",  # the address of the callback holds a code
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
}
"""Also for answers that are no pages."""


def code_page(facility: Facility, *, form: str, wrong: str | None = None) -> Page:
    """Where the code is typed. It is never filled in: who was sent a link has to copy a code that is not theirs."""
    name = escape(facility.name)
    problem = "" if wrong is None else f'<p id="problem" class="warn" role="alert">{escape(wrong)}</p>'
    invalid = "" if wrong is None else ' aria-invalid="true" aria-describedby="problem"'
    return _page(
        f"Log in to {name}",
        f"""<p>Type the code that <code>certauth login</code> shows in your terminal.</p>
{problem}<form method="post" action="/login">
<input type="hidden" name="form" value="{escape(form)}">
<label for="code">Code</label>
<input type="text" id="code" name="code" maxlength="32" required autofocus autocomplete="off" autocapitalize="characters"
 spellcheck="false"{invalid}>
<button type="submit">Continue</button>
</form>
<p class="warn">Did somebody send you the code? Then close this page: they would be acting as you.</p>""",
        form_action="'self'",
    )


def confirm_page(facility: Facility, shown: Confirmation, *, form: str, browser_address: str | None) -> Page:
    """What the person decides about, and the two answers."""
    issuer, name = shown.issuer, escape(facility.name)
    purpose, comes_of_it, typed = _purpose(facility, shown)
    same = shown.address is not None and shown.address == browser_address
    where = "the same address as this browser" if same else "this browser is at another address"
    provider = escape(urlsplit(issuer.url).hostname or issuer.url)
    # Chromium applies form-action also to where the provider leads the browser next, which is the provider's business.
    loopback = " http://" + urlsplit(issuer.url).netloc if issuer.url.startswith("http://") else ""
    return _page(
        "Is this your computer?",
        f"""<p>A program on this computer wants to {purpose} at <b>{name}</b>:</p>
<dl>
<dt>Computer, as it calls itself</dt><dd><b>{escape(shown.host)}</b></dd>
<dt>Its address</dt><dd><b>{escape(shown.address or "on the signer's own machine")}</b> ({where})</dd>
<dt>Its key</dt><dd><b>{escape(shown.fingerprint)}</b></dd>
<dt>You log in at</dt><dd><b>{escape(issuer.id)}</b> ({provider})</dd>
{comes_of_it}
</dl>
<p class="warn">Continue only if <b>you</b> typed <code>{typed}</code> there, just now, and your terminal shows the same
computer and the same key. If somebody gave you the code, it is their computer.</p>
<form method="post" action="/login/confirm">
<input type="hidden" name="form" value="{escape(form)}">
<input type="hidden" name="login" value="{escape(shown.login)}">
<button type="submit" name="answer" value="yes">This is me: log in at {escape(issuer.id)}</button>
<button type="submit" name="answer" value="no" class="no">Not me</button>
</form>""",
        form_action=f"'self' https:{loopback}",
    )


def _purpose(facility: Facility, shown: Confirmation) -> tuple[str, str, str]:
    """What the program wants, what comes of it, and the command that begins it; HTML."""
    name, issuer = escape(facility.name), shown.issuer
    if shown.link is not None:
        return (
            "link a login of yours to somebody",
            f"""<dt>What it does</dt><dd>It links this login to <b>{escape(shown.link)}</b>.
From then on your login at {escape(issuer.id)} leads there and to nobody else: go on only if that is you.</dd>""",
            "certauth login --link",
        )
    longest = min(facility.certificate_lifetime, issuer.max_certificate_lifetime or facility.certificate_lifetime)
    return (
        "act as you",
        f"""<dt>It receives</dt><dd>a certificate of {name} in your name, for up to {_hours(longest)}.
With it, it can do at {name} what you can do.</dd>""",
        "certauth login",
    )


def done_page(*, who: str, issuer_id: str) -> Page:
    """The login is finished; what comes of it is said in the terminal."""
    return _page(
        "Go back to your terminal",
        f"""<p>You are logged in at {escape(issuer_id)} as <b>{escape(who)}</b>.</p>
<p>Your terminal says what comes next. You can close this page.</p>""",
    )


def denied_page() -> Page:
    """It was not them."""
    return _page(
        "The login was refused",
        """<p>The program that began it has been told, and got nothing.</p>
<p>If somebody sent you the code, tell those who run this service. You can close this page.</p>""",
    )


def problem_page(*, code: str, sentence: str, hint: str | None, request_id: str, provider_says: str | None = None) -> Page:
    """Something went wrong: what, what to do, and what to tell those who can look it up."""
    quoted = (
        "" if provider_says is None else f"<p>The identity provider says:</p><blockquote>{escape(provider_says)}</blockquote>"
    )
    advice = "" if hint is None else f"<p>What to do: {escape(hint)}.</p>"
    return _page(
        "This did not work",
        f"""<p class="warn" role="alert">{escape(sentence[:1].upper() + sentence[1:])}.</p>
{quoted}{advice}
<p class="small">Code <code>{escape(code)}</code>, request <code>{escape(request_id)}</code></p>""",
    )


def _hours(duration: timedelta) -> str:
    hours, rest = divmod(duration, timedelta(hours=1))
    return in_words(duration) if rest or hours < 1 else f"{hours} hours" if hours > 1 else "an hour"


def _page(title: str, body: str, *, form_action: str = "'none'") -> Page:
    """``title`` and ``body`` are HTML already."""
    html = f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{_STYLE}</style></head>
<body><main>
<h1>{title}</h1>
{body}
</main></body>
</html>
"""
    return Page(html=html, form_action=form_action)
