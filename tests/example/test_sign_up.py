"""The card "A sign-up": a webhook to the receiver and a mail to the mail server, both inside."""

import re

import pytest

ADA = {"name": "Ada", "email": "ada@example.com"}


@pytest.mark.parametrize("mode", ["blocking", "background"])
def test_webhook_and_mail(visitor, tasks, mode):
    """The other site has verified the webhook's signature, and the mail is shown."""
    visitor.press("/sign-up", mode, **ADA)
    tasks.wait(60)

    card = visitor.read("sign-up")

    assert "Webhook, attempt 1 204, signature verified" in card
    assert "Email received ada@example.com" in card
    assert "Welcome, Ada" in card
    assert "Hello Ada, welcome to the Corner Shop." in card
    assert visitor.figure("sign-up", mode) > 0


def test_mail_in_html(visitor, tasks):
    """The HTML of the mail is shown in a frame that can run nothing and load nothing."""
    visitor.press("/sign-up", "background", name="<b>Ada</b>", email="ada@example.com")
    tasks.wait(60)
    page = visitor.client.get("/").get_data(as_text=True)

    mail = visitor.client.get(re.search(r'<iframe[^>]* src="([^"]+)" sandbox', page)[1])

    assert "<h1>Hello &lt;b&gt;Ada&lt;/b&gt;</h1>" in mail.get_data(as_text=True)
    assert 'href="http://localhost/"' in mail.get_data(as_text=True)
    assert mail.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none';")


def test_retries_are_seen(visitor, tasks):
    """Where the other site fails twice, the webhook is tried again until it is there, with the same id."""
    visitor.press("/sign-up", "background", **ADA, fail="2")
    tasks.wait(60)

    card = visitor.read("sign-up")

    assert re.findall(r"Webhook, attempt (\d) (\d+)", card) == [("1", "503"), ("2", "503"), ("3", "204")]
    assert "send_webhook succeeded attempt 3" in visitor.read("tasks")


def test_nobody_retries_in_the_request(visitor):
    """In the request the webhook of a site that is down is lost, the page says so, and the mail goes all the same."""
    visitor.press("/sign-up", "blocking", **ADA, fail="2")

    card = visitor.read("sign-up")

    assert re.search(r"Webhook, attempt 1 503, .* Nobody tries again .* answered 503", card)
    assert "Email received" in card


@pytest.mark.parametrize("mode", ["blocking", "background"])
def test_no_address(visitor, tasks, mode):
    """What is no address is told to the visitor at once, in the background too, and the other site hears nothing."""
    visitor.press("/sign-up", mode, name="Ada", email="nobody")

    card = visitor.read("sign-up")

    assert "That did not work. 'nobody' is no mail address." in card
    assert "Webhook, attempt" not in card
    assert visitor.figure("sign-up", mode) is None
    tasks.assert_not_called()


def test_hostile_names(visitor, tasks):
    """A name is text, whatever is in it: on the page, in the webhook and in the mail."""
    name = '"><script>alert(1)</script>' + "\N{GRINNING FACE}" * 9

    visitor.press("/sign-up", "background", name=name, email="ada@example.com")
    tasks.wait(60)

    assert f"Welcome, {name}" in visitor.read("sign-up")
    assert "<script>alert" not in visitor.client.get("/").get_data(as_text=True)


def test_no_such_mail(visitor):
    """A mail that there is not is not found, however large its number."""
    assert visitor.client.get("/mails/1").status_code == 404
    assert visitor.client.get(f"/mails/{'9' * 40}").status_code == 404


def test_forged_webhook(app, visitor):
    """The receiver refuses a webhook that was not signed with its secret."""
    import urllib3

    visitor.client.get("/")
    url = app.extensions["example_neighbours"].receiver_url

    with urllib3.PoolManager() as pool:
        answer = pool.request("POST", url, json={"sign_up": 1}, headers={"webhook-id": "msg_1"}, retries=False)

    assert answer.status == 401
