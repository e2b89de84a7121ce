"""Why a receiver was not reached, in words that quote nothing that it sent."""

from __future__ import annotations

import ssl

_OLD_TLS = frozenset(
    {"NO_PROTOCOLS_AVAILABLE", "TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "WRONG_SSL_VERSION"}
)
_NO_TLS = frozenset({"HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "WRONG_VERSION_NUMBER"})
_NO_CIPHER = frozenset({"NO_SHARED_CIPHER", "SSLV3_ALERT_HANDSHAKE_FAILURE", "TLSV1_ALERT_INSUFFICIENT_SECURITY"})
_CLIENT_CERTIFICATE = frozenset({"TLSV13_ALERT_CERTIFICATE_REQUIRED", "CERTIFICATE_REQUIRED"})


class ProxyFailed(OSError):
    """
    The proxy refused, failed or did not answer, so that the receiver was never asked.

    `proxy` is its URL without credentials, `how` a verb and its object: "answered 407".
    """

    def __init__(self, proxy: str, how: str) -> None:
        super().__init__(f"the proxy {proxy} {how}")


def describe(error: Exception, receiver: str, proxy: str | None, timeout: float) -> str:
    """Return the text for a delivery to `receiver` that ended in `error`; `proxy` may have caused it."""
    through = "" if proxy is None or isinstance(error, ProxyFailed) else f" through the proxy {proxy}"
    if isinstance(error, TimeoutError):
        return f"{receiver} did not answer{through} within {timeout:g} s."
    return f"{receiver} cannot be reached{through}: {explain(error)}."


def explain(error: Exception) -> str:
    """Return what an error of `Transport.post` means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {_of_tls(error.reason or type(error).__name__)}"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, ConnectionError) and error.strerror is None:
        return "it closed the connection without an answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # The words of a proxy, for example.
    return "".join(character for character in str(error) if character.isprintable())


def _of_tls(reason: str) -> str:
    if reason in _OLD_TLS:
        return f"the receiver speaks no TLS 1.2 or later ({reason})"
    if reason in _NO_TLS:
        return f"the receiver speaks no TLS on this port: should the URL begin with http://? ({reason})"
    if reason in _NO_CIPHER:
        return f"the receiver and this machine's OpenSSL have no cipher in common ({reason})"
    if reason in _CLIENT_CERTIFICATE:
        return f"the receiver asks for a client certificate, which webhooks do not have ({reason})"
    return reason
