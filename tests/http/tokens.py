"""An issuer of identity tokens as Google is one: keys of its own, and certificates that it serves over HTTP."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

crypt: Any = import_module("google.auth.crypt")  # untyped
jwt: Any = import_module("google.auth.jwt")

AUDIENCE = "https://worker.example"
INVOKER = "caller@project.iam.gserviceaccount.com"


@cache
def _pair(name: str) -> tuple[str, str]:
    """A private key and its certificate, as PEM; made once a process."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private.decode(), certificate.public_bytes(encoding).decode()


@cache
def _signer(key: str, key_id: str | None) -> Any:
    return crypt.RSASigner.from_string(_pair(key)[0], key_id)


class Issuer:
    """Signs tokens, and serves the certificates of the keys in `served`."""

    def __init__(self) -> None:
        self.served = ["key-1"]
        self.fetches = 0
        self.cache_control = "public, max-age=3600"
        self.broken = False
        self.url = ""

    def token(self, key_id: str | None = "key-1", *, key: str | None = None, **claims: Any) -> str:
        """A token that is right in all respects, but for `claims` (None leaves one out). `key`: signed with that one,
        whatever it says."""
        now = int(time.time())
        right = {
            "iss": "https://accounts.google.com",
            "aud": AUDIENCE,
            "sub": "1",
            "email": INVOKER,
            "email_verified": True,
            "iat": now - 1,
            "exp": now + 3600,
        }
        said = {name: value for name, value in (right | claims).items() if value is not None}
        signed: bytes = jwt.encode(_signer(key or key_id or "key-1", key_id), said)
        return signed.decode()

    def certificates(self) -> Mapping[str, str]:
        return {name: _pair(name)[1] for name in self.served}


def certificate_of(key_id: str) -> str:
    """What everybody may know of that key."""
    return _pair(key_id)[1]


def with_header(token: str, header: Mapping[str, Any]) -> str:
    """The same claims and signature under another header."""
    encoded = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    return ".".join([encoded, *token.split(".")[1:]])


def without_signature(token: str) -> str:
    """As Cloud Run hands it to a private service."""
    return f"{token.rpartition('.')[0]}.SIGNATURE_REMOVED_BY_GOOGLE"


@contextmanager
def issuer() -> Iterator[Issuer]:
    """An issuer whose certificates are at its `url`, on this machine."""
    made = Issuer()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.fetches += 1
            self.send_response(500 if made.broken else 200)
            self.send_header("Cache-Control", made.cache_control)
            self.end_headers()
            self.wfile.write(json.dumps(made.certificates()).encode())

        def log_message(self, *about: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    made.url = f"http://127.0.0.1:{server.server_port}/certs"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
