"""``make demo``: the main job of certauth, end to end, on this machine, with every command shown.

A person proves who they are to a real OpenID provider, receives a certificate, derives narrow tokens, calls a protected
service over mutual TLS, is refused where they should be, and the log proves all of it. Any step that does not come out as it
should ends the demo with exit status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tests.demo.stage import ROOT, STOPPING, DemoFailure, Stage, free_port

HERE = Path(__file__).parent
DOMAIN = "demo.example"
SETTINGS = "facility/signer.toml"
DATABASE = "facility/signer.db"
BUNDLE = "facility/bundle.json"
ROOTS = "facility/certificates/root.pem"
REVOKED_WITHIN = 10.0


class Demo:
    """The scenes, in order. Each uses what the ones before it made. Paths are those below the demo's directory."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.run = stage.certauth
        self.signer = f"https://127.0.0.1:{free_port()}"
        self.service = f"https://127.0.0.1:{free_port()}"
        self.provider: dict[str, Any] = {}

    def play(self) -> None:
        """Everything."""
        for scene in (
            self.facility,
            self.stranger,
            self.enrolment,
            self.login,
            self.protected_app,
            self.tokens,
            self.permits,
            self.delegation,
            self.denials,
            self.revocation,
            self.audit,
            self.tampering,
            self.receipt,
        ):
            scene()

    def facility(self) -> None:
        self.stage.step(
            "A facility",
            """People already have a login somewhere: a real OpenID provider (idpyoidc) now runs on this machine. The admin
            makes a facility that believes it: keys, certificates, a database with an empty audit log. Then the signer
            starts.""",
        )
        self.provider = self.stage.provider("alice", "mallory", "pipeline")
        self.run(
            *("signer", "init", "--directory", "facility", "--trust-domain", DOMAIN),
            *("--public-url", self.signer, "--listen", self.signer.removeprefix("https://")),
            *("--issuer-url", self.provider["issuer"], "--client-id", self.provider["client_id"]),
            *("--issuer-ca", self.provider["ca_file"]),
        )
        self.stage.start("signer", f"certauth signer serve --settings {SETTINGS}")
        self.stage.wait_for("signer", int(self.signer.rpartition(":")[2]))

    def stranger(self) -> None:
        self.stage.step(
            "A login alone is not enough",
            """alice logs in. The provider vouches for her, but this facility has never heard of her: it refuses, says what its
            admin needs to know, and records the refusal. A script that fills in the provider's form plays her browser.""",
        )
        for user in ("alice", "mallory", "pipeline"):
            browser = self.stage.directory / f"browser-{user}"
            browser.write_text(
                f"#!/bin/sh\ncd '{ROOT}' && exec '{sys.executable}' -m tests.simulator.openid_provider "
                f"--user {user} --ca-file '{self.provider['ca_file']}' --browse \"$1\"\n"
            )
            browser.chmod(0o700)
        self._log_in("alice", expect=3, code="not-enrolled")

    def _log_in(self, user: str, *arguments: str, expect: int = 0, code: str | None = None, show: bool = True) -> None:
        self.run(
            *("login", self.signer, "--ca-file", ROOTS, "--ca-file", self.provider["ca_file"]),
            *("--browser-command", f"./browser-{user}", *arguments),
            who=user,
            expect=expect,
            code=code,
            show=show,
        )

    def enrolment(self) -> None:
        self.stage.step(
            "The admin decides who becomes whom",
            """A person is the pair of issuer and subject, never an e-mail address. The admin gives the pair a name here and
            says what it may do. Each enrolment is an entry in the log, with who made it and why.""",
        )
        rights = {"alice": ("/alice/", "/shared/"), "mallory": ("/mallory/",), "pipeline": ()}
        for user, paths in rights.items():
            granted = [word for path in paths for word in ("--right", f"files:read,write:{path}")]
            self.run(
                *("signer", "user", "enroll", user, "--subject", self.provider["subjects"][user], *granted),
                *("--reason", f"demo: {user}", "--settings", SETTINGS),
                show=user == "alice",
            )

    def login(self) -> None:
        self.stage.step(
            "alice logs in and receives a certificate",
            """Her program makes a key, and puts a hash of it into the login (the nonce), so the proof is worth nothing with
            any other key. She asks for two days; the facility's cap says one, and says so. The receipt that came with the
            certificate is checked before it is stored.""",
        )
        self._log_in("alice", "--for", "48h")
        self.run("cert", "inspect", who="alice")

    def protected_app(self) -> None:
        self.stage.step(
            "An ordinary app is put behind its policy",
            """tests/demo/app.py knows nothing of certificates. The service's owner gets a TLS certificate from the facility,
            writes down the rules, tests them, and runs the app behind PolicyMiddleware: deny by default, each decision on
            the disk before the request goes on.""",
        )
        owner = "owner"
        self.run(
            *("signer", "service", "certificate", "files", "--host", "127.0.0.1", "--directory", "service"),
            *("--reason", "the data service of beamline 7", "--settings", SETTINGS),
        )
        self.stage.shell(f"cp {shlex.quote(str(HERE / 'policy.toml'))} service/", who=owner)
        self.stage.say("Whom to believe, she writes into service/trust.toml:")
        (self.stage.directory / "service" / "trust.toml").write_text(
            f'version = 1\n\n[[domain]]\nname = "{DOMAIN}"\nbundle = "../{BUNDLE}"\n'
            f'bundle_url = "{self.signer}/.well-known/certauth/bundle"\n'
            f'feed = "{self.signer}/v1/revocations"\nfeed_refresh = 1\n'
        )
        self.stage.shell("cat service/trust.toml", who=owner)
        rules = ("--policy", "service/policy.toml", "--trust", "service/trust.toml")
        self.run("policy", "check", rules[1], *rules[2:], who=owner)
        self.stage.shell("mkdir -p files/alice/run7 && echo 'not for jobs' > files/alice/private", who=owner)
        command = ["certauth", "policy", "run", "tests.demo.app:app", "--app-dir", str(ROOT), *rules]
        command += ["--certificate", "service/chain.pem", "--key", "service/key.pem"]
        command += ["--listen", self.service.removeprefix("https://")]
        self.stage.start("service", f"env DEMO_FILES=files {shlex.join(command)}", who=owner)
        self.stage.wait_for("service", int(self.service.rpartition(":")[2]))

    def tokens(self) -> None:
        self.stage.step(
            "Tokens: one from the signer, narrower ones made offline",
            """The certificate says who; a token says what, where and for how long, and works only together with the
            certificate it is bound to. alice narrows it for an analysis: one subtree, reading only, ten minutes. No server
            is asked, and nothing can widen it again.""",
        )
        self.run("token", "mint", "files", who="alice")
        self.run("token", "attenuate", "files", "--read", "/alice/run7/", "--for", "10m", "--as", "run7", who="alice")
        self.run("token", "inspect", "run7", who="alice")

    def permits(self) -> None:
        self.stage.step(
            "What she may do, works",
            """Certificate and token meet at the service's own door: request, certificate, token, decision, record. She
            uploads with the full token, reads with the narrow one, and opens a WebSocket, where the app knows her too.""",
        )
        frame = f"{self.service}/files/alice/run7/frame1"
        self.stage.shell("head -c 1000000 /dev/urandom > frame1", who="alice")
        self.run("call", "PUT", frame, "--token", "files", "--upload", "frame1", who="alice")
        self.run("call", "GET", frame, "--token", "run7", "--output", "frame1.copy", who="alice")
        self.stage.shell("cmp frame1 frame1.copy", who="alice")
        url = f"{self.service.replace('https', 'wss')}/live/alice/run7/detector"
        client = shlex.quote(str(HERE / "live.py"))
        said = self.stage.shell(f"python {client} {url} alice/{DOMAIN} run7 {ROOTS}", who="alice")
        hello, _, echoed = said.strip().partition("\n")
        if json.loads(hello) != {"hello": f"spiffe://{DOMAIN}/user/alice"} or echoed != "beam on":
            raise DemoFailure("the app does not know who is connected")

    def delegation(self) -> None:
        self.stage.step(
            "A job gets its share, with a key of its own",
            """The pipeline has its own key and certificate, and no rights. alice hands her token on to exactly that
            certificate, narrowed, signed with her key, offline. The service sees both: the pipeline calls, for alice.""",
        )
        self._log_in("pipeline", show=False)
        job = f"pipeline/{DOMAIN}/chain.pem"
        self.run(
            *("token", "delegate", "files", "--to", job, "--read", "/alice/run7/", "--for", "30m", "--output", "job.token"),
            who="alice",
        )
        self.run("token", "inspect", "job.token", who="pipeline")
        frame = f"{self.service}/files/alice/run7/frame1"
        self.run("call", "GET", frame, "--token", "job.token", "--output", "frame1.job", who="pipeline")

    def denials(self) -> None:
        self.stage.step(
            "What must not work, does not",
            """Every denial has a stable code, a reason, and a request id under which the owner finds the whole story.""",
        )
        frame = f"{self.service}/files/alice/run7/frame1"
        self.stage.say("Another path than the token was narrowed to:")
        self.run(
            *("call", "GET", f"{self.service}/files/alice/private", "--token", "run7"),
            who="alice",
            expect=3,
            code="token-path",
        )
        self.stage.say("Writing with a token for reading:")
        self.run(*("call", "PUT", frame, "--token", "run7", "--data", "x"), who="alice", expect=3, code="token-operation")
        self.stage.say("A token stolen from alice's disk, in the hands of mallory, who has a valid certificate of her own:")
        self._log_in("mallory", show=False)
        self.stage.shell(f"install -m 600 alice/{DOMAIN}/tokens/files stolen.token", who="mallory")
        self.run("call", "GET", frame, "--token", "stolen.token", who="mallory", expect=3, code="token-binding")
        self.stage.say("The thief tries to hand the stolen token on to herself; only alice's key could sign that:")
        hers = f"mallory/{DOMAIN}/chain.pem"
        self.run(
            *("token", "delegate", "stolen.token", "--to", hers, "--as", "mine"),
            who="mallory",
            expect=3,
            code="token-wrong-holder",
        )
        self.stage.say("A token whose time is over:")
        self.run("token", "attenuate", "files", "--for", "1s", "--as", "brief", who="alice")
        self.stage.shell("sleep 1.5", who="alice")
        self.run("call", "GET", frame, "--token", "brief", who="alice", expect=3, code="token-expired")
        self.stage.say("No token at all:")
        self.run("call", "GET", frame, who="alice", expect=3, code="token-required")

    def revocation(self) -> None:
        self.stage.step(
            "Revocation takes effect within seconds",
            """The admin withdraws alice's token. Everything derived from it is dead too, the job's share included. The
            service learns of it from the signer's signed feed, without a restart.""",
        )
        jti = json.loads(self.run("token", "inspect", "files", "--json", who="alice", show=False))["jti"]
        print(f'     "jti": "{jti}", and the rest of what the token says')
        self.run(*("signer", "user", "revoke", "alice", "--token", jti, "--reason", "laptop lost", "--settings", SETTINGS))
        frame = f"{self.service}/files/alice/run7/frame1"
        self.stage.say("As soon as the service has read the feed:")
        self.stage.certauth_until(
            *("call", "GET", frame, "--token", "run7"), who="alice", expect=3, code="token-revoked", seconds=REVOKED_WITHIN
        )
        self.run("call", "GET", frame, "--token", "job.token", who="pipeline", expect=3, code="token-revoked")

    def audit(self) -> None:
        self.stage.step(
            "The log proves all of it",
            """Every grant, refusal, enrolment and revocation is an entry of a Merkle log whose head the facility signs; no
            credential left before its entry was on the disk. The service's decisions form a chain of their own.""",
        )
        self.run("audit", "verify", DATABASE, "--bundle", BUNDLE)
        self.run("audit", "verify", "service/decisions.jsonl", who="owner")

    def tampering(self) -> None:
        self.stage.step(
            "One byte is changed in a copy of the log",
            """Somebody with full access to the database rewrites history: in one entry, a single byte. Verification names
            the place.""",
        )
        self.stage.shell(f"python {shlex.quote(str(HERE / 'forge.py'))} {DATABASE} forged.db")
        self.run("audit", "verify", "forged.db", "--bundle", BUNDLE, expect=3, code="log-entry-altered", verdict="detected")

    def receipt(self) -> None:
        self.stage.step(
            "A receipt is checked offline",
            """alice kept the receipt of her certificate. With it and the facility's public log key anybody can verify, years
            later and without asking anyone, that the log holds that grant.""",
        )
        receipts = self.stage.directory / "alice" / DOMAIN / "receipts"
        receipt = next(receipts.glob("certificate-*")).relative_to(self.stage.directory)
        self.run("audit", "check-receipt", receipt, "--bundle", BUNDLE, who="alice")

    def keep(self) -> None:
        """Say what to try, and wait until a signal or the end of one of the programs."""
        print(f"\nEverything is still running below {self.stage.directory}. Try, in another terminal:\n")
        print(f"  {self.stage.setup('alice')}")
        print("  certauth token mint files --name again")
        print(f"  certauth call GET {self.service}/files/alice/run7/ --token again")
        print(f"  certauth signer user list --settings {SETTINGS}")
        print(f"  certauth audit verify {DATABASE} --bundle {BUNDLE}")
        print(f"  curl --cacert {ROOTS} {self.signer}/readyz")
        print("\nCtrl-C stops it and removes everything.", flush=True)
        while all(process.poll() is None for process in self.stage.running.values()):
            time.sleep(0.5)
        raise DemoFailure("one of the programs has ended by itself")


class Stopped(BaseException):
    """A signal asked for the end; whatever runs is stopped and removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    raise Stopped(number)


def main() -> int:
    """Play the demo in a temporary directory; 0 if every step came out as it should."""
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--keep", action="store_true", help="leave it running and say what to try")
    keep = parser.parse_args().keep
    started = time.monotonic()
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) wants it
            signal.signal(number, _stop)
    try:
        with tempfile.TemporaryDirectory(prefix="certauth-demo-") as directory:
            stage = Stage(Path(directory))
            try:
                return _played(stage, started, keep="yes" if keep else "no")
            finally:
                for number in STOPPING:  # what stops it must not be stopped
                    signal.signal(number, signal.SIG_IGN)
                stage.stop()
    except Stopped as stopped:
        with contextlib.suppress(OSError):  # a terminal that was closed
            print("\nstopped", file=sys.stderr)
        return stopped.status


def _played(stage: Stage, started: float, *, keep: str) -> int:
    demo = Demo(stage)
    try:
        demo.play()
        print(f"\nAll {stage.steps} steps came out as they should, in {time.monotonic() - started:.0f} s.", flush=True)
        if keep == "yes":
            demo.keep()
    except (DemoFailure, OSError) as failure:
        print(f"\nThe demo failed at step {stage.steps}: {failure}", file=sys.stderr)
        for log in sorted(stage.directory.glob("*.log")):
            print(f"--- the end of {log.name}", *log.read_text().splitlines()[-15:], sep="\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
