"""START HERE: send_fax."""

from flask import current_app

from ...dispatch import task
from ...state import state_of
from .errors import FaxRefused
from .signals import fax_refused


def _checked(number, text):
    if not number.isdigit():
        raise ValueError(f"{number!r} is not a number of a fax.")
    return (number, text), {}


@task(queue="faxes", prepare=_checked)
def send_fax(number, text):
    """Send `text` to the fax machine with this number. ValueError for an invalid one."""
    from .machine import dial

    app = current_app._get_current_object()
    try:
        return dial(number, text, timeout=state_of(app).config["ASOK_FAX_TIMEOUT"])
    except FaxRefused:
        fax_refused.send(app, number=number)
        raise
