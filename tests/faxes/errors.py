"""The error of a fax."""

from ...errors import AsokError


class FaxRefused(AsokError):
    """The fax machine has refused it for good."""
