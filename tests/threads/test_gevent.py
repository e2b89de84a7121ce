"""gunicorn's --preload with gevent: a process sets up, forks, and only its child gets gevent's locks."""

import subprocess
import sys

import pytest

pytest.importorskip("gevent")

PRELOADED = """
import os, sys
from flask import Flask
from flask_asok import FlaskAsok

app = Flask("shop")
asok = FlaskAsok(app)
asok.preload()
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

import faulthandler
# A thread that waits for itself cannot be told to end.
faulthandler.dump_traceback_later(30, exit=True)
from gevent import monkey; monkey.patch_all()
import gevent
"""

SHARED = """
made = []

def make():
    made.append("one")
    gevent.sleep(0)
    return made[:]

state = app.extensions["asok"]
jobs = [gevent.spawn(state.shared, "connections", make) for _ in range(10)]
gevent.joinall(jobs, raise_error=True)
assert [job.value for job in jobs] == [["one"]] * 10, made
"""

MAIL = """
import socket
from flask_asok.recipes.mail.smtp import _hello

looked_up = []

def getfqdn(name=""):
    looked_up.append(name)
    gevent.sleep(0)
    return "shop.example.com"

socket.getfqdn = getfqdn
jobs = [gevent.spawn(_hello, None) for _ in range(2)]
gevent.joinall(jobs, raise_error=True)
assert [job.value for job in jobs] == ["shop.example.com"] * 2
assert len(looked_up) == 1
"""


@pytest.mark.parametrize("program", [SHARED, MAIL], ids=["shared", "mail"])
def test_greenlets_after_preload(program):
    """What a process makes once is made once, and no greenlet that asks for it meanwhile freezes the process."""
    ended = subprocess.run(
        [sys.executable, "-c", PRELOADED + program], capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 0, ended.stderr
