"""The Dockerfile is built, and what comes out runs as it will: without root, rights or a disk to write on.

Building takes a minute, and more than a laptop may have: without buildah, podman, root and the base that
`.ci/run` makes, these tests skip and say so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from notifier.local.broker import EmbeddedBroker, free_port
from tests.support.manifests import ROOT, run, tool
from tests.support.waiting import until

DOCKERFILE = ROOT / "Dockerfile"
BASE = ROOT / ".peers" / "python-bookworm.tar"
BASE_NAME, NAME = "localhost/base:test", "localhost/notifier:test"
PROGRAMS = ("buildah", "podman", "runc")
UID = "10001"


@dataclass(frozen=True)
class Image:
    """Where it is kept, and its files."""

    store: tuple[str, ...]
    root: Path
    config: dict

    def command(self, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        """Runs it as Kubernetes does: nothing may be written, nothing may be gained."""
        return [
            "podman", *self.store, "--cgroup-manager", "cgroupfs", "--runtime", "runc",
            "run", "--rm", "--pull", "never", "--network", "host", "--no-healthcheck",
            "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
            "--read-only", "--read-only-tmpfs=false", "--cap-drop", "all",
            "--security-opt", "no-new-privileges",
            *options, NAME, *arguments,
        ]  # fmt: skip

    def packages(self) -> set[str]:
        """`name-version` of each."""
        site = self.root.glob("opt/notifier/lib/*/site-packages/*.dist-info")
        return {path.name.removesuffix(".dist-info").lower() for path in site}

    def said(self, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return run(*self.command(*arguments, options=options), timeout=100)


def _can_build() -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    missing += [] if BASE.exists() else [str(BASE.relative_to(ROOT))]
    missing += [] if os.geteuid() == 0 else ["root"]
    if missing and os.environ.get("CI"):
        pytest.fail(f"CI must have {', '.join(missing)}")
    if missing:
        pytest.skip(f"no image can be built here: {', '.join(missing)} missing; `.ci/run` brings it")


def _must(*command: str | Path) -> str:
    done = run(*command, timeout=400)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4_000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """In a store of its own, which is gone afterwards."""
    _can_build()
    folder = Path(tempfile.mkdtemp(prefix="image-"))  # podman wants a path of no more than 50 characters
    store = ("--root", str(folder / "root"), "--runroot", str(folder / "run"))
    try:
        _must("podman", *store, "import", "--quiet", BASE, BASE_NAME)
        _must(
            "buildah", *store, "bud", "--isolation", "chroot", "--pull-never", "--quiet",
            "--volume", "/etc/ssl/certs:/etc/ssl/certs:ro", "--build-arg", f"BASE={BASE_NAME}",
            "--build-arg", "VERSION=1.2.3", "--build-arg", "REVISION=abc", "--tag", NAME, ROOT,
        )  # fmt: skip
        container = _must("buildah", *store, "from", "--pull-never", NAME)
        root = Path(_must("buildah", *store, "mount", container))
        config = json.loads(_must("buildah", *store, "inspect", "--type", "image", NAME))["OCIv1"]
        yield Image(store, root, config)
    finally:
        run("buildah", *store, "rm", "--all")
        run("podman", *store, "rmi", "--all", "--force")
        for mounted in ("root/overlay", "root/overlay-containers"):
            run("umount", folder / mounted)
        shutil.rmtree(folder, ignore_errors=True)


# Without building.


def test_hadolint_has_nothing_to_say() -> None:
    done = run(tool("hadolint"), "--no-color", DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")


def test_everything_that_is_installed_is_locked_by_its_hash() -> None:
    text = DOCKERFILE.read_text()
    installs = re.findall(r"-m pip (?:--python \S+ )?(?:install|wheel)(?:[^&\n]|\\\n)*", text)
    assert len(installs) == 4
    for one in installs:
        assert "--require-hashes" in one or "--no-index" in one or "--no-deps" in one, one
    for name in ("requirements-service.lock", "requirements-image.lock"):
        lock = (ROOT / name).read_text()
        releases = re.findall(r"^[a-z0-9-]+==.*$", lock, re.MULTILINE)
        assert releases
        assert all(line.endswith("\\") for line in releases), "a release without a hash; run `make lock`"
        assert not re.search(r"://|^-", lock, re.MULTILINE)


def test_what_is_served_is_what_was_tested() -> None:
    """The service's lock is the part of the whole one that the image needs."""
    everything, service = (
        dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.lock", "requirements-service.lock")
    )
    assert service.items() <= everything.items()
    assert {"redis", "pydantic", "uvicorn", "jinja2"} <= service.keys()
    assert not {"pytest", "mypy", "ruff", "playwright"} & service.keys()


def test_the_base_has_a_tag_and_takes_a_digest() -> None:
    text = DOCKERFILE.read_text()
    assert re.search(r"^ARG BASE=\S+:3\.\d+-slim-\w+$", text, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE}${BASE_DIGEST}"}


def test_the_version_is_the_same_everywhere() -> None:
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    found = {
        "Dockerfile": r"^ARG VERSION=(\S+)$",
        "compose.yaml": r"image: notifier:\$\{NOTIFIER_VERSION:-(\S+)\}",
        "k8s/base/kustomization.yaml": r"name: notifier\n +newTag: (\S+)",
        "k8s/overlays/production/kustomization.yaml": r"newTag: (\S+)",
        "docs/how-to/deploy-on-kubernetes.md": r"example.com/notifier:(\S+)",
    }
    for path, pattern in found.items():
        assert set(re.findall(pattern, (ROOT / path).read_text(), re.MULTILINE)) == {ours}, path


# Built.


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_it_says_what_it_is(image: Image) -> None:
    config = image.config["config"]
    assert config["Entrypoint"] == ["notifier"]
    assert config["User"] == f"{UID}:{UID}"
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items()}
    assert labels["title"] == "notifier"
    assert (labels["version"], labels["revision"], labels["licenses"]) == ("1.2.3", "abc", "Apache-2.0")
    assert image.said("--version").stdout == f"notifier {version('notifier-service')}\n"


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_it_holds_the_service_and_no_tool(image: Image) -> None:
    for name in ("channels", "templates"):
        assert _files(image.root / "srv/notifier" / name) == _files(ROOT / name)
    installed = {name.partition("-")[0] for name in image.packages()}
    assert "notifier_service" in installed
    assert not {"pip", "pytest", "cyclonedx_bom", "setuptools", "hatchling"} & installed
    writable = [
        p for p in (*image.root.glob("opt/notifier/**/*"), *image.root.glob("srv/**/*")) if _may_write(p)
    ]
    assert writable == []


def _files(folder: Path) -> set[Path]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path for path in found if "__pycache__" not in path.parts}


def _may_write(path: Path) -> bool:
    status = path.lstat()
    return not path.is_symlink() and (status.st_uid == int(UID) or bool(status.st_mode & 0o002))


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_its_bill_of_materials_names_each_package(image: Image) -> None:
    bill = json.loads((image.root / "srv/notifier/sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "notifier-service")
    told = {
        f"{one['name'].lower().replace('-', '_').replace('.', '_')}-{one['version']}"
        for one in bill["components"]
    }
    assert {name for name in image.packages() if not name.startswith("notifier_service")} == told


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_demo_passes_in_it(image: Image) -> None:
    done = image.said("demo", options=("--tmpfs", "/tmp"))  # noqa: S108 - of the container
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all as expected" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(500)
async def test_a_worker_and_the_api_run_in_it_and_stop(image: Image, tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "broker", persistent=False) as broker:
        environ = {
            "NOTIFIER_REDIS_URL": broker.url,
            "NOTIFIER_API_KEYS": "publish:" + "p" * 32,
            "NOTIFIER_METRICS_OPEN": "true",
        }
        options = tuple(f"--env={name}={value}" for name, value in environ.items())
        for arguments in (("api",), ("worker", "router", "in_app")):
            port = free_port()
            command = image.command(*arguments, "--port", str(port), options=options)
            running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            try:

                def is_ready(port: int = port) -> bool:
                    try:
                        return (
                            httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200
                        )
                    except httpx.HTTPError:
                        return False

                await until(is_ready, deadline=60, every=0.1)
                running.terminate()  # podman hands it on
                assert running.wait(30) == 0, running.stderr and running.stderr.read()
            finally:
                running.kill()
                running.communicate()
