"""`warm_cache` and `warm`."""

import gc
import threading

import pytest

from flask_asok import Cache, NotConfigured, background, current_task, task, warm_cache
from flask_asok.recipes.cache.recipe import Warming, warm_queued_before
from flask_asok.recipes.cache.stores.lru_store import LRUStore
from flask_asok.testing.doubles import distribute

cache = Cache()


def test_recipe(app):
    """The recipe loads in the background and stores for its ttl."""
    with app.app_context():
        warming = background(warm_cache, "recent_posts", lambda: ["One"], ttl=300)

        assert warming.result(10) == ["One"]
        assert cache.get("recent_posts") == ["One"]


def test_recipe_name(memory_app):
    """Its task is named warm_cache and runs on the queue of the cache."""
    with memory_app.app_context():
        warming = background(warm_cache, "a", lambda: (current_task().name, current_task().queue))

        assert warming.result(10) == ("warm_cache", "cache")


def test_called_directly(memory_app):
    """Called like any function, the recipe warms now and returns the value."""
    with memory_app.app_context():
        assert warm_cache("a", lambda: 1) == 1
        assert cache.get("a") == 1


def test_recipe_ttl(memory_app, clock):
    """ttl and stale are those of the recipe's call."""
    with memory_app.app_context():
        background(warm_cache, "a", lambda: 1, ttl=10, stale=10).join(10)

        clock.advance(11)

        assert not cache.has("a")
        assert cache.remember("a", lambda: 2, ttl=10) == 1


def test_recipe_cache(memory_app):
    """The recipe stores where it is told to."""
    own = Cache(LRUStore())
    with memory_app.app_context():
        background(warm_cache, "a", lambda: 1, cache=own).join(10)

        assert own.get("a") == 1
        assert not cache.has("a")


@pytest.mark.parametrize(("args", "error"), [(("a", 5), TypeError), ((1, int), TypeError), (("a", int, 0), ValueError)])
def test_recipe_checks(memory_app, args, error):
    """What cannot be warmed is an error at the call of background."""
    with memory_app.app_context(), pytest.raises(error):
        background(warm_cache, *args)


def test_replaces(app):
    """Warming loads though there is a fresh value, and replaces it."""
    with app.app_context():
        cache.set("a", "old")

        assert cache.warm("a", lambda: "new") == "new"
        assert cache.get("a") == "new"


def test_loader_error(app, caplog):
    """When the loader fails the old value stays, and the task fails with its error."""
    with app.app_context():
        cache.set("a", "old")

        def fail():
            raise LookupError("no database")

        warming = background(warm_cache, "a", fail)

        assert isinstance(warming.exception(10), LookupError)
        assert cache.get("a") == "old"
        assert "Background task warm_cache failed: LookupError('no database')" in caplog.text


def test_retries(memory_app):
    """With retries a failed warm loads again."""
    answers = iter([LookupError(), LookupError(), "loaded"])

    def load():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with memory_app.app_context():
        warming = background.using(retries=2, backoff=0)(warm_cache, "a", load)

        assert warming.result(10) == "loaded"
        assert cache.get("a") == "loaded"


def test_one_running_one_pending(memory_app, gate):
    """While a warm runs, all further calls for its key share one more load, and settle with its value."""
    entered = threading.Event()
    calls = []

    def load():
        calls.append(1)
        entered.set()
        assert gate.wait(10)
        return len(calls)

    with memory_app.app_context():
        first = background(warm_cache, "a", load)
        assert entered.wait(10)
        others = [background(warm_cache, "a", load) for _ in range(20)]
        gate.set()

        assert first.result(10) == 1
        assert [other.result(10) for other in others] == [2] * 20
        assert cache.get("a") == 2


def test_pending_error(memory_app, gate):
    """Calls that share a load share its error."""
    entered = threading.Event()

    def slow():
        entered.set()
        assert gate.wait(10)

    def fail():
        raise LookupError

    with memory_app.app_context():
        background(warm_cache, "a", slow)
        assert entered.wait(10)
        others = [background(warm_cache, "a", fail) for _ in range(3)]
        gate.set()

        assert all(isinstance(other.exception(10), LookupError) for other in others)


def test_newest_loader_counts(memory_app, gate):
    """Calls that share a load are done with the newest one's loader, which knows the newest value."""
    entered = threading.Event()

    def slow():
        entered.set()
        assert gate.wait(10)

    with memory_app.app_context():
        background(warm_cache, "a", slow)
        assert entered.wait(10)
        others = [background(warm_cache, "a", lambda value=value: value) for value in range(3)]
        gate.set()

        assert [other.result(10) for other in others] == [2] * 3


def test_cancelled(memory_app, gate):
    """A warm that is cancelled before it ran keeps nobody from warming later."""
    entered = threading.Event()

    @task(queue="cache")
    def block():
        entered.set()
        assert gate.wait(10)

    with memory_app.app_context():
        blocking = [background(block) for _ in range(4)]
        warming = background(warm_cache, "a", lambda: 1)
        assert warming.cancel()
        gate.set()
        for blocked in blocking:
            blocked.join(10)

        assert background(warm_cache, "a", lambda: 2).result(10) == 2


def test_nothing_is_kept_of_cancelled_warms(memory_app):
    """Warms that never run, since the transaction they waited for was rolled back, leave nothing behind."""
    with memory_app.app_context():
        for number in range(10):
            assert background.using(delay=3600)(warm_cache, f"user:{number}", lambda: 1).cancel()

        gc.collect()
        assert not list(cache._find_loader()._runs._pending)


def test_other_keys(memory_app, gate):
    """A key whose loader is slow holds up no other key."""
    entered = threading.Event()

    def slow():
        entered.set()
        assert gate.wait(10)

    with memory_app.app_context():
        background(warm_cache, "slow", slow)
        assert entered.wait(10)

        assert background(warm_cache, "quick", lambda: 1).result(10) == 1


def test_stuck_loader(make_app, gate):
    """A stuck loader keeps the next warm waiting for ASOK_CACHE_LOCK_TIMEOUT and no longer."""
    app = make_app(ASOK_CACHE_LOCK_TIMEOUT=0.05)
    entered = threading.Event()

    def stuck():
        entered.set()
        assert gate.wait(10)
        return "old"

    with app.app_context():
        first = background(warm_cache, "a", stuck)
        assert entered.wait(10)

        assert background(warm_cache, "a", lambda: "new").result(10) == "new"

        gate.set()
        assert first.result(10) == "old"
        assert cache.get("a") == "new"


def test_shared_run_of_a_stuck_thread(make_app, gate):
    """Nor does a call that shares a run wait for it any longer: it loads for itself."""
    app = make_app(ASOK_CACHE_LOCK_TIMEOUT=0.05)
    entered = threading.Event()
    calls = []

    def stuck_at_first():
        calls.append(1)
        if len(calls) == 1:
            entered.set()
            assert gate.wait(10)
        return len(calls)

    with app.app_context():
        run = cache.warm_run("a", stuck_at_first)
        leader = threading.Thread(target=run.result)
        leader.start()
        assert entered.wait(10)

        assert run.result()[0] == 2

        gate.set()
        leader.join(10)


def test_exit_in_shared_run(memory_app, gate):
    """A call that shares the run of a thread that is told to exit runs again."""
    entered = threading.Event()
    calls = []

    def exit_at_first():
        calls.append(1)
        if len(calls) == 1:
            entered.set()
            assert gate.wait(10)
            raise SystemExit
        return "loaded"

    def lead():
        with pytest.raises(SystemExit):
            run.result()

    with memory_app.app_context():
        run = cache.warm_run("a", exit_at_first)
        leader = threading.Thread(target=lead)
        leader.start()
        assert entered.wait(10)
        gate.set()

        assert run.result()[0] == "loaded"

        leader.join(10)


def test_warms_itself(memory_app):
    """A loader that warms its own key is an error at once."""
    with memory_app.app_context(), pytest.raises(RuntimeError, match="the key that it loads"):
        cache.warm("a", lambda: cache.warm("a", lambda: 1))


def test_readers_join(memory_app, gate):
    """A reader that finds nothing waits for the warm in progress, and loads nothing itself."""
    entered = threading.Event()

    def slow():
        entered.set()
        assert gate.wait(10)
        return "warm"

    def read():
        with memory_app.app_context():
            read_values.append(cache.remember("a", lambda: pytest.fail("loaded twice")))

    read_values = []
    with memory_app.app_context():
        warming = background(warm_cache, "a", slow)
        assert entered.wait(10)
        reader = threading.Thread(target=read)
        reader.start()
        gate.set()
        warming.join(10)
        reader.join(10)

    assert read_values == ["warm"]


def test_warm_beats_older_load(raced_app, gate):
    """A reader's load that began before the warm does not overwrite it, though it ends later."""
    entered = threading.Event()

    def slow():
        entered.set()
        assert gate.wait(10)
        return "old"

    def read():
        with raced_app.app_context():
            cache.remember("a", slow)

    reader = threading.Thread(target=read)
    reader.start()
    assert entered.wait(10)
    with raced_app.app_context():
        cache.warm("a", lambda: "new")
        gate.set()
        reader.join(10)

        assert cache.get("a") == "new"


def test_distributed_needs_shared_store(memory_app):
    """Where tasks run in other processes, warming this one's memory is an error at the call, with what to set."""
    distribute(memory_app)

    with memory_app.app_context(), pytest.raises(NotConfigured, match="CACHE_REDIS_URL"):
        background(warm_cache, "a", load_seven)


def load_seven():
    return 7


def test_distributed(redis_app):
    """There the loader, which is sent by its name, goes with plain data: where a Cache stores, and for how long."""
    distribute(redis_app)
    options = warm_cache.__asok_options__
    with redis_app.app_context():
        warming = options.prepare("a", load_seven, ttl=5, cache=Cache(stale=3, prefix="my:"))

        assert warming == Warming(key="a", load=load_seven, ttl=5.0, stale=3.0, prefix="my:")
        assert options.run(warming) == 7
        assert Cache(prefix="my:").get("a") == 7


def test_queued_before(redis_app):
    """A call that the version before has left in the broker still warms, for as long as that said."""
    with redis_app.app_context():
        assert warm_queued_before("a", load_seven, 5.0, stale=3.0, cache="my:") == 7
        assert Cache(prefix="my:").get("a") == 7
        assert warm_queued_before.__asok_options__.queue == "cache"


def test_distributed_refuses(redis_app):
    """A store that another process could not find is an error at the call."""
    distribute(redis_app)
    with redis_app.app_context():
        own = Cache(Cache()._find_loader().store)

        with pytest.raises(TypeError, match="another process"):
            background(warm_cache, "a", load_seven, cache=own)
