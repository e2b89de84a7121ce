"""The ASOK_WEBHOOK_* settings are checked when the app is set up."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from flask_asok.recipes.webhooks import settings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ASOK_WEBHOOK_ALLOW", ["http://x"]),
        ("ASOK_WEBHOOK_ALLOW", [7]),
        ("ASOK_WEBHOOK_MAX_BYTES", 0),
        ("ASOK_WEBHOOK_MAX_BYTES", "1"),
        ("ASOK_WEBHOOK_PER_HOST", True),
        ("ASOK_WEBHOOK_PROXY", 7),
        ("ASOK_WEBHOOK_PROXY", "localhost:3128"),
        ("ASOK_WEBHOOK_PROXY", "https://localhost:3128"),
        ("ASOK_WEBHOOK_CA_FILE", 7),
        ("ASOK_WEBHOOK_CA_FILE", "/nowhere/ca.pem"),
        ("ASOK_WEBHOOK_CA_FILE", __file__),
        ("ASOK_WEBHOOK_SECRETS", "whsec_x"),
        ("ASOK_WEBHOOK_SECRETS", {"a": "b"}),
        ("ASOK_WEBHOOK_SECRETS", {"a": []}),
        ("ASOK_WEBHOOK_SECRETS", {7: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}),
    ],
)
def test_bad(make_app: Any, key: str, value: Any) -> None:
    """A setting that is no good raises in init_app, by its name."""
    with pytest.raises((TypeError, ValueError), match=key):
        make_app(**{key: value})


def test_defaults_are_good() -> None:
    """The defaults pass their own check."""
    for setting in settings.SETTINGS:
        setting.check(setting.name, setting.default)


def test_light_import() -> None:
    """Importing the recipe does not import urllib3; the first delivery does."""
    code = "import sys, flask_asok.recipes.webhooks; sys.exit('urllib3' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0
