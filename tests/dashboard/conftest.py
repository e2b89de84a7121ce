"""An application with the dashboard, and requests as a browser sends them."""

import re

import pytest

from flask_asok import FlaskAsok

asok = FlaskAsok()

ADDRESS = "http://localhost"


@pytest.fixture
def make_dashboard(make_app):
    """Make an application with the dashboard at /tasks: `make_dashboard(access=..., arguments=True)`."""

    def make(access=lambda: "write", arguments=False, url_prefix="/tasks", **config):
        config = {"ASOK_STORE": "memory", "ASOK_TRACKED": True, **config}
        app = make_app(**config)
        app.register_blueprint(asok.dashboard(access=access, arguments=arguments), url_prefix=url_prefix)
        return app

    return make


@pytest.fixture
def shop(make_dashboard):
    """An application whose every visitor may write."""
    return make_dashboard()


@pytest.fixture
def fields():
    """Return the hidden fields of the form that leads to `action`, on the page at `path`."""

    def fields(client, path, action):
        page = client.get(path, base_url=ADDRESS).text
        form = re.search(rf'<form method="post" action="{re.escape(action)}">(.*?)</form>', page, re.DOTALL)
        assert form, page
        return dict(re.findall(r'name="([^"]+)" value="([^"]*)"', form[1]))

    return fields


@pytest.fixture
def press(fields):
    """Press a button of a page, as a browser does, and return the answer."""

    def press(client, path, action, headers=None, **others):
        sent = {**fields(client, path, action), **others}
        headers = {"Origin": ADDRESS, **(headers or {})}
        return client.post(action, data=sent, headers=headers, base_url=ADDRESS)

    return press
