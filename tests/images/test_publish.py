"""A file is the old one or the new one, whoever looks and whatever happens."""

import errno
import os
import select
import signal
import stat
import threading

import pytest
from PIL import Image

from flask_asok.recipes.images import ImageError, atomic, resize_image
from flask_asok.recipes.images.pipeline import Work


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that is full when the bytes are to be on it."""

    def refuse(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)


def test_permissions(studio):
    """The mode of the file is kept."""
    path = studio.save(studio.photo((900, 900)), "photo.jpg")
    os.chmod(path, 0o640)

    resize_image(path)

    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="It needs two users.")
def test_group_of_a_worker(studio):  # pragma: no cover - for root alone, and half of it in another process
    """A worker of another user leaves an image to the group that it shares with the web process."""
    path = studio.save(studio.photo((900, 900)), "photo.jpg")
    shared, worker = 3000, 1500
    os.chown(path, 2000, shared)
    os.chmod(path, 0o640)
    os.chown(studio.folder, worker, shared)
    with open(path, "r+b") as file:
        like = os.fstat(file.fileno())

        child = os.fork()
        if not child:
            code = 1
            try:
                # The folders above it are closed to other users.
                os.chdir(studio.folder)
                os.setgroups([shared])
                os.setgid(worker)
                os.setuid(worker)
                atomic.replace_file(b"new", "photo.jpg", lambda temporary: None, like=like)
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0

    after = os.stat(path)
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (worker, shared, 0o640)


def test_private_from_the_first_byte(studio, monkeypatch):
    """What becomes of a private image can be read by nobody else while it is written, either."""
    path = studio.save(studio.photo((900, 900)), "photo.jpg")
    os.chmod(path, 0o600)
    modes = []
    resemble = atomic._resemble
    monkeypatch.setattr(
        atomic, "_resemble", lambda file, like: (modes.append(os.fstat(file).st_mode), resemble(file, like))
    )

    resize_image(path)

    assert [stat.S_IMODE(mode) for mode in modes] == [0o600]


def test_permissions_of_a_new_file(studio, tmp_path):
    """A new file gets what the umask gives, so that a web server can read it."""
    path = studio.save(studio.photo((900, 900)), "photo.jpg")
    os.chmod(path, 0o600)
    plain = studio.put(b"", "plain")

    picture = resize_image(path, to=tmp_path)

    assert stat.S_IMODE(os.stat(picture.path).st_mode) == stat.S_IMODE(os.stat(plain).st_mode)


@pytest.mark.usefixtures("full_disk")
def test_full_disk(studio):
    """When the disk is full the original stays, nothing is left behind, and the error is the disk's own."""
    path = studio.save(studio.photo((900, 900)), "photo.jpg")
    before = studio.read(path)

    with pytest.raises(OSError, match="No space left"):
        resize_image(path)

    assert studio.read(path) == before
    assert studio.others(path) == []


def test_link_at_the_destination(studio, tmp_path):
    """A link where the result is to be written is replaced; what it leads to is not touched."""
    path = studio.save(studio.photo((900, 900)), "photo.jpg")
    secret = studio.put(b"secret", "secret")
    link = os.fspath(tmp_path / "photo.jpg")
    os.symlink(secret, link)

    resize_image(path, to=link)

    assert not os.path.islink(link)
    assert studio.read(secret) == b"secret"


def test_replaced_meanwhile(studio, monkeypatch):
    """An image that was uploaded while the old one was worked on is not overwritten by it."""
    path = studio.save(studio.corners((900, 900)), "photo.png")
    newer = studio.encoded(Image.new("RGB", (1600, 400), "blue"), "PNG")
    same = atomic.is_same_file

    def replaced(one, other):
        if os.path.getsize(path) != len(newer) and not replaced.done:
            replaced.done = True
            os.replace(studio.put(newer, "newer.png"), path)
            return same(one, os.stat(path))
        return same(one, other)

    replaced.done = False
    monkeypatch.setattr(atomic, "is_same_file", replaced)

    picture = resize_image(path)

    assert (picture.width, picture.height) == (800, 200)
    with Image.open(path) as image:
        assert image.getpixel((5, 5)) == (0, 0, 255)


def test_two_tasks_on_one_picture(studio):
    """Two that work on one image in place both count, whoever is first."""
    path = studio.save(studio.corners((900, 450)), "photo.png")
    meet = threading.Barrier(2)

    def resize(*args, **options):
        meet.wait(10)
        resize_image(path, *args, **options)

    threads = [
        threading.Thread(target=resize, args=((800, 800),)),
        threading.Thread(target=resize, args=((200, 200),), kwargs={"fit": "cover"}),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    with Image.open(path) as image:
        assert image.size == (200, 200)


def test_always_replaced(studio, monkeypatch):
    """Against another program who writes all the time it gives up."""
    path = studio.save(studio.corners((900, 900)), "photo.png")
    monkeypatch.setattr(atomic, "is_same_file", lambda one, other: False)

    with pytest.raises(ImageError) as caught:
        resize_image(path)

    assert caught.value.reason == "changed"


def test_deleted_meanwhile(studio, monkeypatch):
    """An image that was deleted while it was worked on stays deleted."""
    path = studio.save(studio.corners((900, 900)), "photo.png")
    run = Work.run

    def gone(work, **options):
        yield from run(work, **options)
        os.unlink(path)

    monkeypatch.setattr(Work, "run", gone)

    with pytest.raises(FileNotFoundError):
        resize_image(path)

    assert not os.path.exists(path)


def test_never_a_broken_file(studio):
    """Somebody who reads all the time while an image is resized 50 times sees only whole ones."""
    large = studio.encoded(studio.photo((500, 400)), "JPEG")
    path = studio.put(large, "photo.jpg")
    begun, done = threading.Event(), threading.Event()
    seen, broken = set(), []

    def read():
        is_last = False
        while not is_last:
            is_last = done.is_set()
            data = studio.read(path)
            if data not in seen:
                seen.add(data)
                if not (data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9")):
                    broken.append(data)
            begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(30)
    for _ in range(50):
        atomic.replace_file(large, path, lambda temporary: None)
        resize_image(path, (250, 250))
    done.set()
    reader.join(30)

    assert not reader.is_alive()
    assert broken == []
    assert len(seen) == 2
    assert studio.others(path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="It needs fork.")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed(studio):
    """A process that is killed at any moment, 30 times over its whole run, leaves the old image or the new one."""
    before = studio.encoded(studio.photo((1600, 1200)), "JPEG")
    path = studio.put(before, "photo.jpg")
    resize_image(path)
    after = studio.read(path)
    seconds = _seconds_of_one(path, before)
    outcomes = {"old": 0, "new": 0}

    for number in range(30):
        studio.put(before, "photo.jpg")
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, b"!")
            resize_image(path)
            os.write(writer, b"!")
            os._exit(0)
        os.read(reader, 1)
        # The last ones are let go to the end, so that this is seen to go there.
        select.select([reader], [], [], seconds * number / 25 if number < 28 else 30)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)

        found = studio.read(path)
        assert found in (before, after)
        outcomes["old" if found == before else "new"] += 1

    assert min(outcomes.values()) >= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="It needs fork.")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("step", ["create_temporary", "flush_to_disk", "rename", "replace"])
def test_killed_while_writing(studio, monkeypatch, step):
    """Killed between any two steps of writing, too."""
    before = studio.encoded(studio.photo((400, 300)), "JPEG")
    path = studio.put(before, "photo.jpg")
    child = os.fork()
    if child == 0:
        die = os.replace if step == "replace" else getattr(atomic, step)

        def killed(*args, **kwargs):
            die(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(os if step == "replace" else atomic, step, killed)
        resize_image(path, 100)
        os._exit(1)
    _, status = os.waitpid(child, 0)

    assert os.WTERMSIG(status) == signal.SIGKILL
    with Image.open(path) as image:
        image.load()
        assert image.size == ((100, 75) if step in ("rename", "replace") else (400, 300))


def _seconds_of_one(path, data):
    import time

    with open(path, "wb") as file:
        file.write(data)
    start = time.perf_counter()
    resize_image(path)
    return time.perf_counter() - start
