"""Map errors of the SMTP connection to MailUnavailable and MailRefused, whose texts say what to do."""

from __future__ import annotations

import smtplib
import ssl

from .errors import MailError, MailRefused, MailUnavailable
from .smtp import NoMailServer, readable

_CLOCK = frozenset({9, 10})
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


def failure_of(error: smtplib.SMTPException | OSError, server: str) -> MailError:
    """Map a connection error to MailUnavailable or MailRefused; `server` is named in its text."""
    if isinstance(error, smtplib.SMTPResponseException):
        kind = MailUnavailable if 400 <= error.smtp_code < 500 else MailRefused
        return kind(f"{server}: {error.smtp_code} {readable(error.smtp_error)}", code=error.smtp_code)
    if isinstance(error, ssl.SSLCertVerificationError):
        return MailRefused(f"{server}: its certificate cannot be verified ({error.verify_message}). {_advice(error)}")
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return MailRefused(f"{server}: no TLS there. MAIL_USE_SSL is for port 465, MAIL_USE_TLS (STARTTLS) for 587.")
    if isinstance(error, NoMailServer):
        return MailRefused(f"{server}: {error}. Look at MAIL_SERVER, MAIL_PORT and MAIL_USE_SSL.")
    if isinstance(error, (smtplib.SMTPServerDisconnected, OSError)) and not _is_final(error):
        return MailUnavailable(f"{server}: {readable(str(error)) or type(error).__name__}")
    return MailRefused(f"{server}: {readable(str(error))}")


def _advice(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _CLOCK:
        return "The server needs a new one, unless the clock of this machine is wrong."
    return "Name the authority that signed it in ASOK_MAIL_CA_FILE, and the server as in its certificate."


def _is_final(error: Exception) -> bool:
    # SMTPException is itself an OSError, so it would pass for a lost connection.
    return isinstance(error, smtplib.SMTPException) and not isinstance(error, smtplib.SMTPServerDisconnected)
