"""
What a cached value costs, and what its readers wait for, beside Flask-Caching, Asok and a dict with a lock.

`python benchmarks/cache.py` prints two tables, `python benchmarks/cache.py cost` or `readers` one of them.
Method and caveats: README.md in this folder.
"""

from __future__ import annotations

import gc
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import flask_caching
from asok.cache import Cache as AsokCache
from flask import Flask

from flask_asok import Cache, FlaskAsok

US, FLASK_CACHING, ASOK, DICT = "Flask-Asok", "Flask-Caching SimpleCache", "Asok, memory", "dict and lock"
US_REDIS, FLASK_CACHING_REDIS, ASOK_REDIS = "Flask-Asok, Redis", "Flask-Caching Redis", "Asok, Redis"

SHORT = "a short string"
POSTS = [{"id": n, "title": f"Post number {n}", "author": "Ann", "tags": ["a", "b"], "views": n * 7} for n in range(20)]

LOADER, TTL, THINK = 0.3, 1, 0.01
"""Seconds, of the readers at expiry."""


@dataclass
class Contender:
    """One cache, and the app context that it is used in."""

    name: str
    app: Flask
    get: Callable[[str], Any]
    set: Callable[[str, Any], Any]
    remember: Callable[[Callable[[], Any], int], Callable[[], Any]] | None
    """Make the function that reads through, for a loader and a ttl in seconds."""
    forget: Callable[[], Any]

    @property
    def is_on_redis(self) -> bool:
        """Is its time the network's, not the processor's?"""
        return "Redis" in self.name


def ours(name: str, **config: Any) -> Contender:
    app = Flask("ours")
    app.config.update(config)
    FlaskAsok(app)
    cache = Cache(stale=60)

    def remember(load: Callable[[], Any], ttl: int) -> Callable[[], Any]:
        return lambda: cache.remember("read", load, ttl)

    return Contender(name, app, cache.get, cache.set, remember, lambda: cache.delete("read"))


def theirs(name: str, **config: Any) -> Contender:
    app = Flask("theirs")
    cache = flask_caching.Cache(app, config={"CACHE_THRESHOLD": 10_000, **config})
    functions: list[Any] = []

    def remember(load: Callable[[], Any], ttl: int) -> Callable[[], Any]:
        def read() -> Any:
            return load()

        functions.append(cache.memoize(timeout=ttl)(read))
        return functions[-1]  # type: ignore[no-any-return]

    def forget() -> None:
        for function in functions:
            cache.delete_memoized(function)

    return Contender(name, app, cache.get, cache.set, remember, forget)


def asoks(name: str, backend: str) -> Contender:
    cache = AsokCache(backend)

    def remember(load: Callable[[], Any], ttl: int) -> Callable[[], Any]:
        return lambda: cache.remember("read", ttl, load)

    return Contender(name, Flask("asok"), cache.get, cache.set, remember, lambda: cache.forget("read"))


def dict_and_lock() -> Contender:
    """The least that a cache shared by threads can cost."""
    values: dict[str, Any] = {}
    lock = threading.Lock()

    def get(key: str) -> Any:
        with lock:
            return values.get(key)

    def put(key: str, value: Any) -> None:
        with lock:
            values[key] = value

    return Contender(DICT, Flask("dict"), get, put, None, values.clear)


def in_memory() -> list[Contender]:
    return [ours(US), theirs(FLASK_CACHING, CACHE_TYPE="SimpleCache"), asoks(ASOK, "memory"), dict_and_lock()]


def on_redis(url: str | None) -> list[Contender]:
    if url is None:
        return []
    os.environ["ASOK_REDIS_URL"] = url
    return [
        ours(US_REDIS, CACHE_REDIS_URL=url),
        theirs(FLASK_CACHING_REDIS, CACHE_TYPE="RedisCache", CACHE_REDIS_URL=url),
        asoks(ASOK_REDIS, "redis"),
    ]


Figures = dict[str, float]


def cost(contender: Contender) -> Figures:
    """Microseconds for one operation: of the processor for what is in memory, of the clock on Redis."""
    count, timer = (300, time.perf_counter) if contender.is_on_redis else (5_000, time.thread_time)
    where = "Redis" if contender.is_on_redis else "memory"
    found: Figures = {}
    with contender.app.app_context():
        for what, value in (("short string", SHORT), ("20 posts", POSTS)):
            contender.set("key", value)
            found[f"{where}: get, {what} (us)"] = spent(lambda: contender.get("key"), count, timer)
            found[f"{where}: set, {what} (us)"] = spent(lambda v=value: contender.set("key", v), count, timer)
        if contender.remember is not None:
            read = contender.remember(lambda: POSTS, 300)
            read()
            found[f"{where}: read through, 20 posts (us)"] = spent(read, count, timer)
            contender.forget()
    return found


def full(contender: Contender) -> Figures:
    """Microseconds of the processor for a new key in a cache that is full, of 10,000 values."""
    keys = (str(number) for number in range(1_000_000))
    with contender.app.app_context():
        if contender.get("9999") is None:
            for number in range(10_001):
                contender.set(str(number), SHORT)
        prefix = f"{time.monotonic()} "
        return {"memory: set of a new key, cache full (us)": spent(
            lambda: contender.set(prefix + next(keys), SHORT), 30, time.thread_time
        )}  # fmt: skip


def spent(call: Callable[[], Any], count: int, timer: Callable[[], float]) -> float:
    started = timer()
    for _ in range(count):
        call()
    return (timer() - started) / count * 1e6


class Loader:
    """Takes its time, and counts."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.loads = 0
        self.lock = threading.Lock()

    def __call__(self) -> Any:
        with self.lock:
            self.loads += 1
        time.sleep(self.seconds)
        return POSTS


def cold(contender: Contender) -> Figures:
    """32 threads ask at once for a value that is not there, and takes 100 ms."""
    loader = Loader(0.1)
    assert contender.remember is not None
    with contender.app.app_context():
        contender.forget()
        read = contender.remember(loader, TTL)
        contender.forget()
    barrier = threading.Barrier(32)
    waits: list[float] = []

    def reader() -> None:
        with contender.app.app_context():
            barrier.wait()
            waits.append(timed(read))

    in_threads(32, reader)
    return {
        "32 readers, cold key: loads": loader.loads,
        "32 readers, cold key: wait p50 (ms)": statistics.median(waits) * 1e3,
        "32 readers, cold key: wait max (ms)": max(waits) * 1e3,
    }


def expiry(contender: Contender, seconds: float = 5.0) -> Figures:
    """16 threads that think for 10 ms read a value with a ttl of 1 s that takes 300 ms to load."""
    loader = Loader(LOADER)
    assert contender.remember is not None
    with contender.app.app_context():
        contender.forget()
        read = contender.remember(loader, TTL)
        contender.forget()
        read()
    waits: list[float] = []
    end = time.monotonic() + seconds

    def reader() -> None:
        with contender.app.app_context():
            while time.monotonic() < end:
                waits.append(timed(read))
                time.sleep(THINK)

    in_threads(16, reader)
    waits.sort()
    return {
        "16 readers at expiry: p50 (ms)": waits[len(waits) // 2] * 1e3,
        "16 readers at expiry: p99 (ms)": waits[int(len(waits) * 0.99)] * 1e3,
        "16 readers at expiry: max (ms)": waits[-1] * 1e3,
        "16 readers at expiry: loads in 5 s": loader.loads,
    }


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def in_threads(count: int, target: Callable[[], None]) -> None:
    threads = [threading.Thread(target=target) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def rounds(
    count: int, everybody: list[Contender], measure: Callable[[Contender], Figures]
) -> dict[str, dict[str, list[float]]]:
    """Measure everybody in turn, `count` times, beginning with another one each time. By figure and contender."""
    found: dict[str, dict[str, list[float]]] = {}
    for number in range(count):
        first = number % len(everybody)
        for contender in everybody[first:] + everybody[:first]:
            gc.collect()
            for what, figure in measure(contender).items():
                found.setdefault(what, {}).setdefault(contender.name, []).append(figure)
    return found


@contextmanager
def redis() -> Iterator[str | None]:
    """Start a Redis; yield its URL, or None where there is none."""
    if shutil.which("redis-server") is None:
        print("No redis-server here: its rows are left out.\n")
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if "Ready to accept connections" in line:
                break
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def print_table(found: dict[str, dict[str, list[float]]], peer: dict[str, str]) -> None:
    """Print the medians, and what ours is to the peer's: the median of the rounds' ratios, the lowest, the highest."""
    rows = [["what", "who", "median", "Flask-Asok to it"]]
    for what, figures in found.items():
        mine = next(name for name in figures if name in peer)
        for name, values in figures.items():
            ratio = ""
            if name != mine and min(values) > 0:
                ratios = [a / b for a, b in zip(figures[mine], values, strict=True)]
                ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            rows.append([what, name, f"{statistics.median(values):.3g}", ratio])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} (not installed)"


def main(names: list[str]) -> None:
    packages = ("flask", "flask-caching", "cachelib", "asok", "redis")
    print(f"Python {platform.python_version()}, {', '.join(map(_version, packages))}; {os.cpu_count()} CPUs\n")
    found: dict[str, dict[str, list[float]]] = {}
    with redis() as url:
        memory, shared = in_memory(), on_redis(url)
        if not names or "cost" in names:
            rounds(1, memory + shared, cost)  # not counted: connections open, caches fill
            found |= rounds(15, memory, cost) | rounds(15, memory, full)
            if shared:
                found |= rounds(15, shared, cost)
        if not names or "readers" in names:
            # New ones: a SimpleCache that was filled before drops what expires soonest, which is what these read.
            memory = in_memory()
            readers = [contender for contender in memory + shared if contender.remember is not None]
            found |= rounds(5, readers, cold) | rounds(1, readers, expiry)
        print_table(found, {US: FLASK_CACHING, US_REDIS: FLASK_CACHING_REDIS})
        for contender in memory[:1] + shared[:1]:
            FlaskAsok().close(contender.app)


if __name__ == "__main__":
    main(sys.argv[1:])
