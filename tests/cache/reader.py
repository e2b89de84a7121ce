"""A process that reads a key through the cache on its threads, when told: `reader.py URL THREADS WAY`."""

import json
import sys
import threading
import time

from flask import Flask

from flask_asok import Cache, FlaskAsok

url, count, way = sys.argv[1], int(sys.argv[2]), sys.argv[3]

app = Flask("reader")
app.config.update(CACHE_REDIS_URL=url, ASOK_CACHE_LOCK_TIMEOUT=10)
FlaskAsok(app)
cache = Cache()
loads = []
results = []
waits = []


def load():
    loads.append(1)
    print("loading", flush=True)
    if way == "hang":
        threading.Event().wait(60)
    # As long as a query may take: the readers of all processes have to meet it.
    time.sleep(0.3)
    return "value"


def read():
    with app.app_context():
        started = time.monotonic()
        results.append(cache.remember("cold", load))
        waits.append(time.monotonic() - started)


with app.app_context():
    cache.has("cold")
print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=read) for _ in range(count)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({"loads": len(loads), "results": results, "longest": max(waits)}), flush=True)
