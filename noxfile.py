"""Every check of the project, the same here and in CI: `nox -l` lists them."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import nox

nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["lint", "typing", "docs", "tests", "lowest"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
SUPPORTED = nox.project.python_versions(PYPROJECT)
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def interpreter(version: str) -> str | None:
    """Return the path of a Python that really runs; a pyenv shim may be there and not run."""
    if version == HERE:
        return sys.executable
    pyenv = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/python"))
    for candidate in (shutil.which(f"python{version}"), *map(str, reversed(pyenv))):
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    return None


PYTHONS = {version: path for version in SUPPORTED if (path := interpreter(version))}
OTHERS = [version for version in PYTHONS if version != HERE]
OLDER = OTHERS[0] if len(OTHERS) > 1 else HERE
"""The Python of the lowest versions: where there are three, each session of the tests has one of its own."""


def groups(*names: str) -> list[str]:
    """Return the requirements of dependency groups; an older pip knows no `--group`."""
    return nox.project.dependency_groups(PYPROJECT, *names)


AXE = "4.14.1"
"""The release of axe-core: a new one has new rules, and should not fail a run of CI that changed nothing."""

built: list[Path] = []
"""The wheel, once there is one: the sessions of one run share it."""


def install_wheel(session: nox.Session, *extras: str) -> None:
    """Build the wheel and install that: what the tests find is what users get."""
    if not built:
        folder = Path(session.create_tmp())
        for old in folder.glob("*.whl"):
            old.unlink()
        session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), ".")
        built.extend(path.resolve() for path in folder.glob("*.whl"))
    (wheel,) = built
    session.install(f"{wheel}[{','.join(extras)}]" if extras else str(wheel))


def pillow_images(session: nox.Session) -> dict[str, str]:
    """
    Return the variable that names the test images of the installed Pillow, the odd and broken files of 15 years.

    They are in its source distribution only, which is fetched once for all sessions. Where it cannot be had the tests
    that want it say so: they are skipped at home, and fail in CI.
    """
    asked = session.run("python", "-c", "import PIL; print(PIL.__version__)", silent=True)
    version = str(asked).strip()
    cache = Path(session.cache_dir)
    folder = cache / f"pillow-{version}" / "Tests" / "images"
    if not folder.is_dir():
        download = ["pip", "download", "--quiet", "--no-deps", "--no-binary", "pillow", "--dest", str(cache)]
        session.run("python", "-m", *download, f"pillow=={version}", success_codes=range(256))
        for archive in cache.glob(f"[Pp]illow-{version}.tar.gz"):
            unpacked = Path(session.create_tmp())
            with tarfile.open(archive) as files:
                wanted = [one for one in files if "/Tests/images/" in one.name]
                files.extractall(unpacked, wanted, filter="data")
            # In one step, so that what was interrupted is not taken for all of it.
            (unpacked / archive.name.removesuffix(".tar.gz")).rename(folder.parent.parent)
            archive.unlink()
    return {"ASOK_IMAGE_CORPUS": str(folder.resolve())} if folder.is_dir() else {}


def axe(session: nox.Session) -> dict[str, str]:
    """
    Return the variable that names axe-core, which finds in a page what people with disabilities cannot use.

    It is fetched from npm once for all sessions. Where it cannot be had the tests that want it say so: they are skipped
    at home, and fail in CI.
    """
    script = Path(session.cache_dir).resolve() / f"axe-core-{AXE}.min.js"
    if not script.is_file() and shutil.which("npm"):
        folder = Path(session.create_tmp())
        pack = ["npm", "pack", "--silent", "--pack-destination", str(folder), f"axe-core@{AXE}"]
        session.run(*pack, external=True, silent=True, success_codes=range(256))
        for archive in folder.glob(f"axe-core-{AXE}.tgz"):
            with tarfile.open(archive) as files:
                files.extract("package/axe.min.js", folder, filter="data")
            (folder / "package" / "axe.min.js").rename(script)
            archive.unlink()
    return {"ASOK_AXE": str(script)} if script.is_file() else {}


# Most tests wait for servers: more processes than processors. A file stays in one, since it shares its servers; in the
# order of their names, since the folder whose tests take longest comes early.
ALL_TESTS = ["tests", "-n", str(2 * (os.cpu_count() or 1)), "--dist", "loadfile", "--no-loadscope-reorder"]
NOT_SLOW = [*ALL_TESTS, "-m", "not slow"]

THE_SAME = ["--ignore=tests/images", "--ignore=tests/dashboard", "--ignore=tests/status"]
"""What is of Pillow or of a browser is the same for all Pythons: one of them runs it."""

CORE = [*THE_SAME, *(f"--ignore=tests/{room}" for room in ("cache", "docs", "mail", "telemetry", "webhooks"))]
"""What the other Pythons run, for want of time, unless they are asked for by name."""

OF_LOWEST = [*THE_SAME, *(f"--ignore=tests/{room}" for room in ("docs", "periodic", "store", "telemetry"))]
"""What no version of a library that Flask-Asok needs has a say in, one of the Pythons runs."""

NO_CORPUS = "--ignore=tests/images/test_corpus.py"
"""Pillow is the same for all Pythons: one of them works on its images."""


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """
    Run the tests on this Python, and on every other supported one that is there but that of `lowest`.

    All of them on this Python; on the others what is not slow and of the core, for all must take less than a quarter of
    an hour. The session of one version, such as `tests-3.13`, runs all of them, or what it is asked for.
    """
    for version in PYTHONS:
        if version == HERE:
            session.notify(f"tests-{version}", session.posargs or ALL_TESTS)
        elif version != OLDER:
            session.notify(f"tests-{version}", session.posargs or [*NOT_SLOW, *CORE])


def tests_on(version: str, path: str) -> None:
    @nox.session(name=f"tests-{version}", python=path)
    def run(session: nox.Session) -> None:
        install_wheel(session, "async", "celery", "example", "postgres")
        session.install(*groups("tests"))
        arguments = session.posargs or ALL_TESTS
        # -P: the tree's own package must not be found in place of the wheel.
        if version == HERE:
            # One Python works on Pillow's images, judges the pages, and measures the coverage.
            measured = ["-m", "coverage", "run", "-m", "pytest", *arguments]
            session.run("python", "-P", *measured, env={**pillow_images(session), **axe(session)})
        else:
            session.run("python", "-P", "-m", "pytest", *arguments, NO_CORPUS)


for _version, _path in PYTHONS.items():
    tests_on(_version, _path)


@nox.session
def coverage(session: nox.Session) -> None:
    """Judge which branches the latest run of the tests on this Python reached."""
    session.install(*groups("coverage"))
    session.run("coverage", "combine", "--quiet", success_codes=[0, 1])
    session.run("coverage", "report")


@nox.session(python=PYTHONS.get(OLDER))
def lowest(session: nox.Session) -> None:
    """Run the tests that are not slow with the lowest versions that pyproject.toml allows, on a Python of their own."""
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["celery"], *extras["postgres"]]
    constraints = Path(session.create_tmp()) / "lowest.txt"
    constraints.write_text("\n".join(re.sub(r"(\[.*\])?>=([^,]*).*", r"==\2", requirement) for requirement in needed))
    install_wheel(session, "async", "celery", "example", "postgres")
    session.install(*groups("tests"))
    session.install("--constraint", str(constraints), *needed)
    session.run("python", "-P", "-m", "pytest", *(session.posargs or [*NOT_SLOW, *OF_LOWEST]))


@nox.session(name="flask-main")
def flask_main(session: nox.Session) -> None:
    """Run the tests that are not slow with Flask and Werkzeug as they are in their repositories, ahead of a release."""
    install_wheel(session, "async", "celery", "example", "postgres")
    session.install(*groups("tests"))
    session.install("--no-deps", *(f"git+https://github.com/pallets/{name}" for name in ("flask", "werkzeug")))
    session.run("python", "-P", "-m", "pytest", *(session.posargs or [*NOT_SLOW, *THE_SAME]))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*groups("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types, as strict as can be, and that all that is public has one."""
    install_wheel(session, "async", "celery", "periodic", "otel", "postgres")
    session.install(*groups("typing"))
    session.run("mypy")
    session.run("mypy", "tests/typing")
    # What users have: the installed package, and not the tree around it.
    with session.chdir(session.create_tmp()):
        session.run("pyright", "--verifytypes", "flask_asok", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    session.install("-e", ".[celery,postgres]", *groups("docs"))
    session.run("sphinx-build", "-W", "-b", "html", "docs", "docs/_build/html")


@nox.session
def release(session: nox.Session) -> None:
    """Build what would be uploaded into dist/, and check it; only the upload is left: `twine upload dist/*`."""
    session.install(*groups("release"), ".")
    shutil.rmtree("dist", ignore_errors=True)
    # The source distribution, and the wheel from that.
    session.run("python", "-m", "build", "--no-isolation")
    session.run("twine", "check", "--strict", *map(str, Path("dist").iterdir()))
    session.run(
        "python", "-P", "-m", "pytest", "--noconftest", "tests/release", env={"ASOK_DIST": str(Path("dist").resolve())}
    )


@nox.session
def example(session: nox.Session) -> None:
    """Serve the example application on http://127.0.0.1:5000."""
    session.install(".[example]")
    session.run("flask", "--app", "example_app", "run", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against peers, side by side; see benchmarks/README.md."""
    session.install("-e", ".[celery,postgres]", *groups("bench"))
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def screenshots(session: nox.Session) -> None:
    """Make the pictures of the documentation. Needs Chromium."""
    install_wheel(session, "example")
    session.install(*groups("tests"))
    session.run("python", "docs/screenshots.py")
