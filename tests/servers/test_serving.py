"""Which processes serve: those that answer requests, on every server; and no other one."""

import re
import shutil
import sys
from pathlib import Path

import pytest

APPLICATION = Path(__file__).parent / "apps" / "serving.py"

GUNICORN = {
    "sync": ["--worker-class=sync", "--workers=2"],
    "preload": ["--worker-class=gthread", "--threads=2", "--workers=2", "--preload"],
}


def pids(server, what):
    return re.findall(rf"{what} (\d+)", server.log)


@pytest.mark.parametrize("name", [*GUNICORN, "uwsgi", "flask run", "one thread"])
def test_servers(serve, python_module, uwsgi_binary, name):
    """On every server each process starts with the first request that it answers, and once; a master never does."""
    if name in GUNICORN:
        command = [*python_module("gunicorn"), *GUNICORN[name], "--bind=127.0.0.1:0", "serving:app"]
    elif name == "uwsgi":
        command = [
            uwsgi_binary, "--master", "--processes=2", "--http-socket=127.0.0.1:0", "--module=serving:app",
            "--need-app", "--enable-threads", f"--home={sys.prefix}",
        ]  # fmt: skip
    else:
        options = ["--without-threads"] if name == "one thread" else []
        command = [*python_module("flask"), "--app=serving:app", "run", "--port=0", *options]
    server = serve(command, GUNICORN_CMD_ARGS="--no-control-socket")

    answers = [server.get("/") for _ in range(8)]
    served = {str(answer["pid"]) for answer in answers}
    for pid in served:
        server.wait_for_line(rf"SERVES {pid}\b")

    assert all(answer["serving"] for answer in answers)
    assert sorted(pids(server, "SERVES")) == sorted(served)


def test_reloader(serve, python_module, tmp_path):
    """With `flask run --debug` the process that answers starts, never the reloader's; after an edit the next one."""
    shutil.copy(APPLICATION, tmp_path)
    server = serve([*python_module("flask"), "--app=serving:app", "run", "--port=0", "--debug"], cwd=tmp_path)
    first = str(server.get("/")["pid"])

    with (tmp_path / "serving.py").open("a") as file:
        file.write("\n# edited\n")
    server.wait_for_line("Restarting with", count=2)
    server.wait_for_line("IMPORTED", count=3)
    before = pids(server, "SERVES")
    second = str(server.get("/")["pid"])
    server.wait_for_line(rf"SERVES {second}\b")

    assert before == [first]
    assert pids(server, "SERVES") == [first, second]
    assert first != second


@pytest.mark.parametrize("command", ["ask", "shell"])
def test_commands(run, python_module, tmp_path, command):
    """Neither a command nor a shell nor an import starts anything, though it asks the application itself."""
    startup = tmp_path / "startup.py"
    startup.write_text("from serving import app\nprint(app.test_client().get('/').json['serving'])\n")

    process = run([*python_module("flask"), "--app=serving:app", command], PYTHONSTARTUP=startup)
    code = process.wait()

    assert code == 0
    assert "False" in process.log
    assert "SERVES" not in process.log
