"""The servers that a site talks to and that are not its own: one for mail, one that receives webhooks."""

from __future__ import annotations

import os
import threading

from flask import Flask
from werkzeug.serving import BaseWSGIServer, make_server

from .mailbox import Mailbox
from .receiver import create_receiver


class Neighbours:
    """
    Both servers, on free ports of 127.0.0.1, from the first request of `app` until `stop()`.

    Not from its making: the reloader makes the application twice, and `flask routes` needs no servers.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._mailbox: Mailbox | None = None
        self._receiver: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def receiver_url(self) -> str:
        """Where webhooks go."""
        assert self._receiver is not None
        return f"http://127.0.0.1:{self._receiver.port}/webhooks"

    def start(self) -> None:
        """Start what does not run yet in this process; a forked one has the memory of its parent, not the threads."""
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid == os.getpid():
                return
            config = self._app.config
            self._mailbox = self._start_mailbox(config["MAIL_PORT"])
            site = create_receiver(
                config["EXAMPLE_FOLDER"], config["ASOK_WEBHOOK_SECRETS"]["shop"], config["EXAMPLE_PAUSE"]
            )
            self._receiver = make_server("127.0.0.1", 0, site, threaded=True)
            # It looks so often whether it is to stop: every half second would be felt at each reload.
            self._thread = threading.Thread(
                target=self._receiver.serve_forever, args=(0.1,), name="example-receiver", daemon=True
            )
            self._thread.start()
            self._pid = os.getpid()

    def _start_mailbox(self, port: int) -> Mailbox | None:
        try:
            mailbox = Mailbox(self._app, port)
        except OSError as error:
            # Most likely another web process of ours has it, and the database that the mails come to is the same.
            self._app.logger.warning("No mail server is started on port %d: %s. See FLASK_MAIL_PORT.", port, error)
            return None
        mailbox.start()
        self._app.config["MAIL_PORT"] = mailbox.port
        return mailbox

    def stop(self) -> None:
        """Stop what runs in this process."""
        with self._lock:
            if self._pid != os.getpid():
                return
            self._pid = None
            assert self._receiver
            assert self._thread
            if self._mailbox:
                self._mailbox.stop()
            self._receiver.shutdown()
            self._receiver.server_close()
            self._thread.join(5)
