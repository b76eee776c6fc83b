"""The TCP port's certificate: read, tried, and taken up again when its files change."""

from __future__ import annotations

import logging
import math
import os
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from daemon.errors import ConfigError, ConfigReason

log = logging.getLogger(__name__)

WARN_BEFORE = timedelta(days=14)  # to have another made
CERT_HAS_EXPIRED = 10  # of OpenSSL's verification codes
MAX_ROUNDS = 4  # TLS 1.3 needs two, 1.2 three

Marks = tuple[tuple[int, int, int], ...]


class Certificate:
    """A certificate chain and its key. Methods block; raise `ConfigError` (TLS)."""

    def __init__(self, certificate: Path, key: Path | None) -> None:
        self._certificate, self._key = certificate, key
        self._context: ssl.SSLContext | None = None
        self._marks: Marks = ()
        self.expires_s = float("nan")
        """By the wall clock."""
        self.problem: ConfigError | None = None
        """Why the files as they are now are not used, or should not be."""

    def context(self) -> ssl.SSLContext:
        """What connections are made with from now on; an expired certificate is served, and is a `problem`.

        Not to measure because a date has passed would be worse than clients that complain.
        """
        if self._context is None:
            self._marks = self._now()
            self._context = _context(self._certificate, self._key)
            self._judge(self._context)
        return self._context

    def refresh(self) -> None:
        """Take up files that changed; those that cannot be used are a `problem`, and the earlier ones stay in use."""
        try:
            marks = self._now()
            if self._context is not None and marks != self._marks:
                self._marks = marks
                self._judge(_context(self._certificate, self._key))
                self._context.load_cert_chain(self._certificate, self._key, password=_no_passphrase)
                log.info("the certificate '%s' was taken up", self._certificate)
        except ConfigError as error:
            if str(error) != str(self.problem):
                log.error("the certificate in use stays: %s", error)
            self.problem = error

    def expires_soon(self) -> bool:
        """Within two weeks."""
        if math.isnan(self.expires_s):
            return False
        return datetime.fromtimestamp(self.expires_s, UTC) - datetime.now(UTC) < WARN_BEFORE

    def _judge(self, context: ssl.SSLContext) -> None:
        self.problem, self.expires_s = None, float("nan")
        try:
            self.expires_s = _expiry_s(context, self._certificate)
        except ssl.SSLCertVerificationError as error:
            if error.verify_code == CERT_HAS_EXPIRED:
                detail = f"api.tls_certificate: '{self._certificate}' has expired, by the clock of this machine"
                self.problem = ConfigError(ConfigReason.TLS_EXPIRED, detail)
                log.error("%s", self.problem)
            else:  # not valid yet: more often than not the clock of this machine is wrong
                log.warning("'%s': %s", self._certificate, error.verify_message)

    def _now(self) -> Marks:
        try:
            found = [os.stat(path) for path in (self._certificate, self._key) if path is not None]
        except OSError as error:
            raise _unreadable(error) from error
        return tuple((each.st_mtime_ns, each.st_ino, each.st_size) for each in found)


def _context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except ssl.SSLError as error:
        why = f"they are no PEM certificate and key without a passphrase ({error.reason or 'not PEM'})"
        if error.reason == "KEY_VALUES_MISMATCH":
            why = "the key is not the certificate's"
        files = f"'{certificate}'" + (f" with '{key}'" if key else "")
        raise ConfigError(ConfigReason.TLS, f"api.tls_certificate: {files} cannot be used: {why}") from error
    except OSError as error:
        raise _unreadable(error) from error
    return context


def _unreadable(error: OSError) -> ConfigError:
    detail = f"api.tls_certificate: '{error.filename}' cannot be read: {error.strerror}"
    return ConfigError(ConfigReason.TLS, detail)


def _no_passphrase() -> str:
    """Asked for by a key that needs one: without this, OpenSSL would ask at the terminal and wait for ever."""
    return ""


def _expiry_s(context: ssl.SSLContext, certificate: Path) -> float:
    """Wall clock time at which the certificate expires. Raises `ssl.SSLCertVerificationError` when it is not valid now.

    Found by shaking hands with itself in memory, trusting nothing but the certificate.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certificate)
    here, there = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking, answering = client.wrap_bio(there, here), context.wrap_bio(here, there, server_side=True)
    for _ in range(MAX_ROUNDS):
        for side in (asking, answering):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    until = (asking.getpeercert() or {}).get("notAfter")
    return ssl.cert_time_to_seconds(until) if isinstance(until, str) else float("nan")
