"""What `pip install notifier-service` brings, and what a checkout installs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import Distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
import redis
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
SHIPPED = {".py", ".lua", ".typed", ".js", ".css", ".html"}
UV = Path(sys.executable).with_name("uv")

UNREACHABLE = re.compile(r"error sending request|dns error|failed to fetch|failed to connect", re.IGNORECASE)

PUBLISH_BOTH_WAYS = """
import asyncio, sys
from notifier import AsyncPublisher, Event, Publisher

async def publish(url):
    async with AsyncPublisher(url) as publisher:
        await publisher.publish({"id": "two", "type": "like", "recipient": "ada"})

with Publisher(sys.argv[1]) as publisher:
    publisher.publish(Event(id="one", type="like", recipient="ada"))
asyncio.run(publish(sys.argv[1]))
assert "notifier.cli" not in sys.modules
"""

IMPORT_BOTH = """
import channels, channels.layers, notifier
print(channels.__file__)
print(notifier.__file__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    """What a command printed, run as a user's would be: without this checkout on any path."""
    wanted = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=wanted,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and command[0] == UV and UNREACHABLE.search(done.stderr) and not os.environ.get("CI"):
        pytest.skip("no package registry can be reached, which this test installs from")
    if done.returncode:
        pytest.fail(done.stderr)
    return done.stdout


def fresh_venv(folder: Path, *install: str | Path) -> Path:
    """The Python of a new virtual environment that holds what `uv pip install` was given."""
    run(UV, "venv", "--quiet", "--python", sys.executable, folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    run(UV, "pip", "install", "--quiet", "--python", python, *install, cwd=folder)
    return python


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=ROOT)
    [built] = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_the_package_notifier_and_nothing_else(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"notifier", "notifier_service"}
    sources = (path for path in (ROOT / "notifier").rglob("*") if path.suffix in SHIPPED)
    expected = {str(path.relative_to(ROOT)) for path in sources}
    assert {"notifier/py.typed", "notifier/__init__.py"} < expected
    assert any(name.endswith(".lua") for name in expected)
    web = {"notifier-inbox.js", "notifier-inbox.de.js", "notifier-push-worker.js"}
    assert {f"notifier/web/{name}" for name in web} < expected
    assert {name for name in names if name.startswith("notifier/")} == expected


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("releases", ["lowest", "locked"])
def test_publishing_needs_only_pydantic_and_redis(
    releases: str, wheel: Path, tmp_path: Path, redis_url: str
) -> None:
    # `lowest-direct` means the requirements given here, not those that the wheel brings.
    choice = {
        "lowest": ["--resolution=lowest-direct", *base_requirements()],
        "locked": ["--constraint", LOCK],
    }
    python = fresh_venv(tmp_path, *choice[releases], wheel)
    run(python, "-I", "-W", "error", "-c", PUBLISH_BOTH_WAYS, redis_url, cwd=tmp_path)
    with redis.Redis.from_url(redis_url) as client:
        queues = [key for key in client.keys("*") if key.endswith(b":events")]
        assert [client.xlen(queue) for queue in queues] == [2]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_it_installs_beside_django_channels(wheel: Path, tmp_path: Path) -> None:
    python = fresh_venv(tmp_path, wheel, "channels")
    places = run(python, "-I", "-c", IMPORT_BOTH, cwd=tmp_path).split()
    [site] = {str(Path(place).parent.parent) for place in places}
    ours, theirs = (files_of(site, name) for name in ("notifier-service", "channels"))
    assert ours
    assert theirs
    assert not ours & theirs


def files_of(site: str, distribution: str) -> set[str]:
    [found] = Distribution.discover(name=distribution, path=[site])
    return {str(file) for file in found.files or ()}


def base_requirements() -> list[str]:
    requirements: list[str] = project()["dependencies"]
    return requirements


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_lock_satisfies_every_dependency_and_extra() -> None:
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", LOCK.read_text(), re.MULTILINE))
    wanted = [
        *base_requirements(),
        *(one for extra in project()["optional-dependencies"].values() for one in extra),
    ]
    unmet = [
        text
        for text in wanted
        if not (one := Requirement(text)).specifier.contains(locked.get(canonicalize_name(one.name), "0"))
    ]
    assert not unmet, "run `make lock`"


def test_the_lock_has_hashes_and_no_address() -> None:
    text = LOCK.read_text()
    releases = re.findall(r"^[a-z0-9-]+==.*$", text, re.MULTILINE)
    assert releases
    assert all(line.endswith("\\") for line in releases), "a release without a hash"
    assert not re.search(r"://|^-", text, re.MULTILINE)
