"""The setting of a fax."""

from ...settings import Setting
from ...validate import positive_seconds

SETTINGS = (Setting("ASOK_FAX_TIMEOUT", 30.0, positive_seconds, "Seconds that a fax machine has to answer."),)
