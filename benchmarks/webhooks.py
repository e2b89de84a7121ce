"""
Webhooks per second, beside the urllib recipe of Asok's page, `requests.Session` and a plain urllib3 pool.

`python benchmarks/webhooks.py` prints one table. It needs `python -m pip install requests trustme`.
Method and caveats: README.md in this folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import multiprocessing
import os
import platform
import ssl
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import requests
import trustme
import urllib3
from flask import Flask

from flask_asok import FlaskAsok, send_webhook

ROUNDS = 7
PAYLOAD = {"type": "invoice.paid", "timestamp": "2026-11-23T05:00:00Z", "data": {"id": 4711, "text": "x" * 150}}
HEADERS = {"Content-Type": "application/json"}
US, RECIPE, SESSION, POOL = "Flask-Asok", "urllib recipe", "requests.Session", "urllib3 pool"
CALLS = {RECIPE: 16}
"""Calls of one round; a recipe that takes so long has to do with fewer."""
USUAL_CALLS = 240

Post = Callable[[str], Any]


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
            if b"connection: close" in head:
                break
    writer.close()


def _receive(certificate: str, ports: Connection) -> None:
    """Answer over http and https, until killed."""

    async def serve() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        servers = [await asyncio.start_server(_answer, "127.0.0.1", 0, ssl=tls) for tls in (None, context)]
        ports.send([server.sockets[0].getsockname()[1] for server in servers])
        await asyncio.gather(*(server.serve_forever() for server in servers))

    asyncio.run(serve())


@contextlib.contextmanager
def receiver(folder: Path) -> Iterator[dict[str, str]]:
    """Run the receiver; trust its certificate besides those of the system."""
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    system = ssl.create_default_context().get_ca_certs(binary_form=True)
    bundle = folder / "bundle.pem"
    pems = [ssl.DER_cert_to_PEM_cert(der) for der in system]
    bundle.write_text("".join(pems) + authority.cert_pem.bytes().decode())
    os.environ["SSL_CERT_FILE"] = os.environ["REQUESTS_CA_BUNDLE"] = str(bundle)
    print(f"{len(pems) + 1} certificates are trusted.")
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_receive, args=(str(folder / "server.pem"), there), daemon=True
    )
    process.start()
    http, https = here.recv()
    yield {"http": f"http://localhost:{http}/", "https": f"https://localhost:{https}/"}
    process.terminate()
    process.join()


def contenders() -> dict[str, Post]:
    """Set up everybody as their documentation has it."""
    app = Flask("benchmark")
    app.config["ASOK_WEBHOOK_ALLOW"] = ["127.0.0.0/8", "::1"]
    FlaskAsok(app)

    def ours(url: str) -> None:
        with app.app_context():
            send_webhook(url, PAYLOAD)

    def recipe(url: str) -> None:
        data = json.dumps(PAYLOAD).encode()
        urllib.request.urlopen(urllib.request.Request(url, data=data, headers=HEADERS)).read()

    session = requests.Session()
    session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=8))
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=8))
    pool = urllib3.PoolManager(maxsize=8)
    return {
        US: ours,
        RECIPE: recipe,
        SESSION: lambda url: session.post(url, json=PAYLOAD, timeout=15).raise_for_status(),
        POOL: lambda url: pool.request("POST", url, json=PAYLOAD, timeout=15),
    }


def per_second(post: Post, url: str, calls: int, threads: int) -> float:
    """Return how many webhooks `threads` threads deliver in a second."""
    gc.collect()
    if threads == 1:
        started = time.perf_counter()
        for _ in range(calls):
            post(url)
        return calls / (time.perf_counter() - started)
    with ThreadPoolExecutor(threads) as executor:
        # Threads and connections are there before the clock starts, as they are in a server.
        list(executor.map(post, [url] * threads * 2))
        started = time.perf_counter()
        list(executor.map(post, [url] * calls))
        return calls / (time.perf_counter() - started)


def measure(post_by_name: dict[str, Post], url: str, threads: int) -> dict[str, list[float]]:
    """Measure everybody in interleaved rounds, each beginning with another one."""
    names = list(post_by_name)
    found: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        post_by_name[name](url)
    for number in range(ROUNDS):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            calls = CALLS.get(name, USUAL_CALLS) if url.startswith("https") else USUAL_CALLS
            found[name].append(per_second(post_by_name[name], url, calls, threads))
    return found


def main() -> None:
    """Print the table."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, urllib3 {version('urllib3')}, ", end="")
    print(f"requests {version('requests')}.")
    print(f"Medians of {ROUNDS} rounds, with the median of their ratios (lowest, highest); above 1 is good.")
    with tempfile.TemporaryDirectory() as folder, receiver(Path(folder)) as urls:
        post_by_name = contenders()
        print(f"\n| | {US} | {' | '.join(f'{name} | ratio' for name in post_by_name if name != US)} |")
        print("|---|" + "---:|" * (2 * len(post_by_name) - 1))
        for scheme in ("https", "http"):
            for threads in (1, 8):
                found = measure(post_by_name, urls[scheme], threads)
                ours = found.pop(US)
                cells = [f"{scheme}, {threads} thread{'s'[: threads - 1]}", f"{statistics.median(ours):.0f}/s"]
                for theirs in found.values():
                    ratios = [mine / their for mine, their in zip(ours, theirs, strict=True)]
                    cells.append(f"{statistics.median(theirs):.0f}/s")
                    cells.append(f"{statistics.median(ratios):.1f}x ({min(ratios):.1f}, {max(ratios):.1f})")
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
