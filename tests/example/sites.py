"""The example application in processes of its own, and a visitor with a browser at it."""

import contextlib
import html
import os
import re
import signal
import subprocess

import urllib3
from waiting import wait_until


class Site:
    """Somebody with a browser at the web server."""

    def __init__(self, url):
        self.url = url
        self.pool = urllib3.PoolManager(timeout=30, retries=False)
        self.cookie = self.pool.request("GET", url).headers["Set-Cookie"].split(";")[0]

    def press(self, path, **fields):
        """Press a button in the mode Background."""
        form = {"mode": "background", **fields}
        answer = self.pool.request(
            "POST", self.url + path, fields=form, headers={"Cookie": self.cookie}, redirect=False
        )
        assert answer.status == 303

    def open(self, path):
        """Return a page."""
        return self.pool.request("GET", self.url + path, headers={"Cookie": self.cookie}).data.decode()

    def read(self, card):
        """Return the text of a card."""
        rest = self.open("/").partition(f'id="{card}"')[2]
        text = re.sub(r"<[^>]*>", " ", "<" + re.split(r"</article>|</section>", rest)[0])
        return " ".join(html.unescape(text).replace("\N{MULTIPLICATION SIGN}", "x").split())

    def wait(self, card, pattern):
        """Reload the page until a card says this."""
        return wait_until(lambda: re.search(pattern, self.read(card)), 60, f"{pattern} on the card {card}")


@contextlib.contextmanager
def running(command, log, **options):
    with (
        open(log, "wb") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, **options) as process,
    ):
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
