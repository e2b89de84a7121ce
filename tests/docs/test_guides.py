"""The pages for those who choose or come from elsewhere, and whether the words that readers type are found."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *(page for page in (ROOT / "docs").glob("*.md") if page.name != "changelog.md")]
PROSE = "\n".join(page.read_text(encoding="utf-8") for page in PAGES).lower()

# What readers of peers' documentation, and of their issues, look for.
WORDS = """
    actor airflow alembic apscheduler argument asgi async asyncio await aws backoff batch beat broker bulk callback
    cancel celery chain chord circular cloud compose concurrency context cpu cron crontab csrf csv dashboard
    deadlock debounce decorator delay deploy django docker download dramatiq durable email eta event-stream eventlet
    exactly exception executor export factory fallback fastapi flask-login flask-sqlalchemy flower fork future gevent
    gil grafana group gunicorn heroku htmx huey hypercorn idempotency import interval job kill kubernetes lambda
    language limit lock logging login machine map memory message metrics middleware migration mock model
    multiprocessing mypy nfs openai opentelemetry order outbox passenger pdf pickle pipeline poll pool postgresql
    priority procfile procrastinate progress prometheus proxy pytest python quart queue rabbitmq rate redis reloader
    render request result retry rollback rq schedule scheduler search sentry serverless session shutdown sigterm
    slack smtp sqlalchemy sqlite sqs sse starlette status stripe structlog subprocess systemd task test thread
    throttle timeout timezone tracing transaction unique upload uvicorn uwsgi virtualenv volume waitress webhook
    websocket windows worker workflow xlsx
"""


def test_words_are_found():
    """A word that readers type has an answer, also where it is "no, because"."""
    missing = [word for word in WORDS.split() if not re.search(rf"\b{re.escape(word)}", PROSE)]

    assert missing == []


def test_extras():
    """The page of the installation lists every extra, and what it installs on every system."""
    page = (ROOT / "docs/installation.md").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    needed = {
        name: {re.match(r"[\w-]+", one)[0] for one in requirements if ";" not in one} - {"flask"}
        for name, requirements in extras.items()
    }

    listed = {
        name: set(installs.split(", ")) for name, installs in re.findall(r"^\| `(\w+)` \| (.+?) \|", page, re.MULTILINE)
    }

    assert listed.keys() == extras.keys()
    assert {name: needed[name] - listed[name] for name in needed if needed[name] - listed[name]} == {}


def test_cards_of_the_example():
    """The README of the example application says what to try on each card of its page."""
    readme = (ROOT / "example_app/README.md").read_text(encoding="utf-8")
    cards = [path.read_text(encoding="utf-8") for path in (ROOT / "example_app/templates/cards").glob("*.html")]

    told = re.findall(r"^- \*\*(.+?)\*\*:", readme, re.MULTILINE)

    assert sorted(told) == sorted(re.search(r"<h2>(.+?)</h2>", card)[1] for card in cards)


def test_every_page_is_in_the_contents():
    """Every page of the documentation is in the menu, once."""
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    menu = [name for block in re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL) for name in block.splitlines()]

    listed = [re.sub(r".*<(.+)>", r"\1", name) for name in menu if name and not name.startswith(":")]

    assert sorted(listed) == sorted(page.stem for page in (ROOT / "docs").glob("*.md") if page.stem != "index")


@pytest.mark.parametrize(
    ("name", "address", "answer"),
    [
        ("from-celery", "/import", {"state": "succeeded", "value": 2}),
        ("from-rq", "/reports", {"state": "succeeded", "report": "The year 2026"}),
    ],
)
def test_coming_from(page, monkeypatch, tmp_path, name, address, answer):
    """The view that queued a job, and the one that asked for it, work as before."""
    source = re.search(r"```python\n(.*?)```", (ROOT / f"docs/{name}.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    opened = page(f"docs/{name}.md")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{name.replace('-', '_')}_program.py").write_text(source)
    exec(f"from {name.replace('-', '_')}_program import app, asok", opened.names)
    client = opened.names["app"].test_client()

    id = client.post(address).json["id"]
    opened.outcomes()

    assert client.get(f"{address}/{id}").json == answer
    assert client.get(f"{address}/unknown").status_code == 404


def test_questions(page, capsys):
    """A chain and a group of tasks are written as shown."""
    page("docs/faq.md").run()

    assert capsys.readouterr().out.split() == ["3", "15"]
