"""A real browser, and a real server for it to look at."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from werkzeug.serving import make_server

SWITCHES = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-pipe"
)
DEADLINE = 30
"""Seconds after which whatever is waited for will not come."""


def find_chromium():
    """Return the path of Chromium, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


CLOCK = """
    window.timers = new Map();
    let number = 0;
    window.setTimeout = (act, ms) => { window.timers.set(++number, {act, ms}); return number };
    window.clearTimeout = (id) => window.timers.delete(id);
    window.tick = () => {
        const [[id, {act, ms}]] = window.timers;
        window.timers.delete(id);
        act();
        return ms;
    };
"""
"""A clock that only the test moves."""


class NoAnswer(Exception):
    """Raised where an expression raises, or its page is gone."""


class Browser:
    """One Chromium with one page."""

    def __init__(self, chromium, folder):
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()
        # It reads its commands from descriptor 3 and answers on 4.
        command = f"exec {chromium} {SWITCHES} --user-data-dir={folder} about:blank 3<&{commands} 4>&{answers}"
        self._process = subprocess.Popen(
            ["bash", "-c", command], pass_fds=(commands, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(commands)
        os.close(answers)
        self._buffer = b""
        self._number = 0
        self._session = None
        self.problems = []
        """What the page's console says: errors of scripts, and what its policy has blocked."""
        self.expected = ["favicon.ico"]
        """Texts of what it may say."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Call a method of the protocol, and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise NoAnswer(answer["error"])
                return answer["result"]
            self._note(answer)

    def go(self, url):
        """Load a page, and wait until it is complete."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState == 'complete' && location.href != 'about:blank'")

    def ask(self, expression):
        """Return the value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise NoAnswer(answer["result"])
        return answer["result"].get("value")

    def wait(self, expression):
        """Wait until an expression is true, be it on the next page, and return its value."""
        deadline, found = time.monotonic() + DEADLINE, None
        while not found:
            assert time.monotonic() < deadline, f"It never came: {expression}"
            # Between two pages there is nothing to ask.
            with contextlib.suppress(NoAnswer):
                found = self.ask(expression)
            if not found:
                self._listen(0.03)
        return found

    def hold_clock(self):
        """Let the time of the pages that are loaded from now on stand still: see `tick`."""
        self.call("Page.addScriptToEvaluateOnNewDocument", source=CLOCK)

    def tick(self):
        """Let the time of the page go on to the one timer that runs, and return its milliseconds."""
        self.wait("window.timers.size == 1")
        return self.ask("window.tick()")

    def show(self, width=700, height=400, **features):
        """Take on a size, and what the visitor prefers, such as `prefers_color_scheme="dark"`."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        media = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=media)

    def screenshot(self, path):
        """Write what is seen to a PNG file."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        """End the browser."""
        self._session = None
        # It may end before it answers.
        with contextlib.suppress(AssertionError, OSError):
            self.call("Browser.close")
        self._process.wait(DEADLINE)
        os.close(self._out)
        os.close(self._in)

    def _note(self, event):
        if event.get("method") == "Log.entryAdded":
            entry = event["params"]["entry"]
            self.problems.append(f"{entry['text']} {entry.get('url', '')}")
        elif event.get("method") == "Runtime.exceptionThrown":
            self.problems.append(event["params"]["exceptionDetails"]["exception"].get("description", ""))

    def _listen(self, seconds):
        """Give the page some time, or less if it has something to tell."""
        if b"\0" in self._buffer or select.select([self._in], [], [], seconds)[0]:
            self._note(self._read())

    def _read(self):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], DEADLINE)
            assert ready, "Chromium does not answer."
            read = os.read(self._in, 65_536)
            assert read, "Chromium has ended."
            self._buffer += read
        line, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(line)


@pytest.fixture
def axe(browser):
    """
    Return what axe-core finds on the page that the browser shows: the rule, and the elements that break it.

    The session of the tests fetches it, and names it in ASOK_AXE.
    """
    path = os.environ.get("ASOK_AXE")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("axe-core is missing: noxfile.py fetches it from npm.")
        pytest.skip("needs axe-core: npm pack axe-core, and its axe.min.js as ASOK_AXE")
    script = Path(path).read_text(encoding="utf-8")

    def look():
        browser.ask(f"{script};0")
        return browser.ask(
            "axe.run().then(({violations}) => violations.map(({id, nodes}) => "
            "[id, nodes.map(node => node.html.slice(0, 120)).slice(0, 3)]))"
        )

    return look


@pytest.fixture
def serve():
    """Serve an application on this machine, and return its address."""
    servers = []

    def serve(app):
        server = make_server("127.0.0.1", 0, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.port}"

    yield serve

    for server, thread in servers:
        server.shutdown()
        thread.join(10)
        server.server_close()


@pytest.fixture
def browser(tmp_path):
    """A headless Chromium; its console has no complaint at the end."""
    chromium = find_chromium()
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is missing; .ci/run installs it.")
        pytest.skip("needs chromium")
    browser = Browser(chromium, tmp_path / "chromium")
    yield browser
    browser.close()
    assert [said for said in browser.problems if not any(text in said for text in browser.expected)] == []
