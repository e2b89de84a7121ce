"""Send a fax in the background: a small recipe, by which the tests show what a further one takes."""

from ..room import Recipe
from .cli import send_test_fax
from .errors import FaxRefused
from .recipe import send_fax
from .settings import SETTINGS
from .signals import fax_refused

__all__ = ["FaxRefused", "fax_refused", "send_fax"]

RECIPE = Recipe(
    name="faxes",
    settings=SETTINGS,
    queues={"faxes": 1},
    commands=(send_test_fax,),
    late_imports=("machine",),
)
