"""The card "A sign-up": a webhook to the receiver and a mail to the mail server, both inside."""

import re

import pytest

ADA = {"name": "Ada", "email": "ada@example.com"}


@pytest.mark.parametrize("mode", ["blocking", "background"])
def test_webhook_and_mail(visitor, tasks, mode):
    """The other site has verified the webhook's signature, and the mail is shown."""
    visitor.press("/sign-up", mode, **ADA)
    tasks.wait()

    card = visitor.read("sign-up")

    assert "Webhook, attempt 1 204, signature verified" in card
    assert "Mail received ada@example.com" in card
    assert "Welcome, Ada" in card
    assert "Hello Ada, welcome to the Corner Shop." in card
    assert visitor.figure("sign-up", mode) > 0


def test_mail_in_html(visitor, tasks):
    """The HTML of the mail is shown in a frame that can run nothing and load nothing."""
    visitor.press("/sign-up", "background", name="<b>Ada</b>", email="ada@example.com")
    tasks.wait()
    page = visitor.client.get("/").get_data(as_text=True)

    mail = visitor.client.get(re.search(r'<iframe[^>]* src="([^"]+)" sandbox', page)[1])

    assert "<h1>Hello &lt;b&gt;Ada&lt;/b&gt;</h1>" in mail.get_data(as_text=True)
    assert 'href="http://localhost/"' in mail.get_data(as_text=True)
    assert mail.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none';")


def test_retries_are_seen(visitor, tasks):
    """Where the other site fails twice, the webhook is tried again until it is there, with the same id."""
    visitor.press("/sign-up", "background", **ADA, fail="2")
    tasks.wait()

    card = visitor.read("sign-up")

    assert re.findall(r"Webhook, attempt (\d) (\d+)", card) == [("1", "503"), ("2", "503"), ("3", "204")]
    assert re.search(r"send_webhook webhooks succeeded 3 ", visitor.read("tasks"))


def test_nobody_retries_in_the_request(visitor):
    """In the request the webhook of a site that is down is lost, the page says so, and the mail goes all the same."""
    visitor.press("/sign-up", "blocking", **ADA, fail="2")

    card = visitor.read("sign-up")

    assert re.search(r"Webhook, attempt 1 503, .* Nobody tries again .* answered 503", card)
    assert "Mail received" in card


@pytest.mark.parametrize("mode", ["blocking", "background"])
def test_no_address(visitor, mode):
    """An address that is none is told to the visitor at once, in the background too."""
    visitor.press("/sign-up", mode, name="Ada", email="nobody")

    assert "No mail" in visitor.read("sign-up")


def test_forged_webhook(app, visitor):
    """The receiver refuses a webhook that was not signed with its secret."""
    import urllib3

    visitor.client.get("/")
    url = app.extensions["example_neighbours"].receiver_url

    with urllib3.PoolManager() as pool:
        answer = pool.request("POST", url, json={"sign_up": 1}, headers={"webhook-id": "msg_1"}, retries=False)

    assert answer.status == 401
