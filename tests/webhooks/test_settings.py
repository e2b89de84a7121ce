"""The ASOK_WEBHOOK_* settings are checked when the app is set up."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from flask_asok import send_webhook
from flask_asok.recipes.webhooks import recorded, settings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


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
        ("ASOK_WEBHOOK_SECRETS", {"a": 7}),
        ("ASOK_WEBHOOK_SECRETS", {"a": [None]}),
        ("ASOK_WEBHOOK_SECRETS", {7: SECRET}),
    ],
)
def test_bad(make_app: Any, key: str, value: Any) -> None:
    """A setting that is no good raises in init_app, by its name."""
    with pytest.raises((TypeError, ValueError), match=key):
        make_app(**{key: value})


@pytest.mark.parametrize("secret", [None, "", [], ()])
def test_secret_that_is_not_set(make_app: Any, secret: Any) -> None:
    """An entry without a secret raises in init_app, by its name: its webhooks would go out unsigned."""
    with pytest.raises(ValueError, match=r"ASOK_WEBHOOK_SECRETS\['billing'\] is .*: give a whsec_"):
        make_app(ASOK_WEBHOOK_SECRETS={"shop": SECRET, "billing": secret})


def test_secret_that_is_emptied(make_app: Any) -> None:
    """What is changed in place afterwards changes nothing: the webhook is signed."""
    secrets: dict[str, Any] = {"billing": [SECRET], "shop": SECRET}
    app = make_app(ASOK_WEBHOOK_SECRETS=secrets, TESTING=True)
    secrets["billing"].clear()
    secrets.pop("shop")

    with app.app_context(), recorded(app) as sent:
        send_webhook("https://example.com/", {}, secret="billing")
        send_webhook("https://example.com/", {}, secret="shop")

    assert all("webhook-signature" in webhook.headers for webhook in sent)
    assert len(sent) == 2


def test_defaults_are_good() -> None:
    """The defaults pass their own check."""
    for setting in settings.SETTINGS:
        setting.check(setting.name, setting.default)


def test_light_import() -> None:
    """Importing the recipe does not import urllib3; the first delivery does."""
    code = "import sys, flask_asok.recipes.webhooks; sys.exit('urllib3' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0
