"""compose.yaml as docker compose reads it, with an .env made of compose.env.example."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from notifier.api.server import DRAIN
from notifier.bootstrap import open_channels
from notifier.cli.app import app
from notifier.local.broker import free_port
from notifier.settings import PREFIX, load
from tests.deploy.test_manifests import FRAGMENTED, IS_SETTING, mebibytes
from tests.support.manifests import ROOT, run, tool
from tests.support.waiting import until

SECRETS = {
    "VALKEY_PASSWORD": "v" * 64,
    "NOTIFIER_API_KEYS": "publish:" + "p" * 64,
    "NOTIFIER_TOKEN_KEYS": "hs256:" + "A" * 43 + "=",
    "NOTIFIER_VAPID_PRIVATE_KEY": "B" * 43,
}
_DURATION = re.compile(r"(?:(\d+)m)?(?:(\d+)s)?")


def composed(folder: Path, **secrets: str) -> subprocess.CompletedProcess[str]:
    """What `docker compose config` makes of a copy, where the example was filled in with these."""
    shutil.copy(ROOT / "compose.yaml", folder)
    lines = (ROOT / "compose.env.example").read_text().splitlines()
    filled = (f"{line}{secrets.get(line[:-1], '')}" if line.endswith("=") else line for line in lines)
    (folder / ".env").write_text("".join(f"{line}\n" for line in filled))
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return run(
        tool("docker-compose"), "-f", folder / "compose.yaml", "config", "--format", "json", env=environ
    )


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    done = composed(tmp_path_factory.mktemp("compose"), **SECRETS)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    found: Mapping[str, Any] = json.loads(done.stdout)
    assert found["networks"]["broker"]["internal"] is True
    services: Mapping[str, Any] = found["services"]
    return services


def seconds(text: str) -> int:
    match = _DURATION.fullmatch(text)
    assert match, text
    return 60 * int(match[1] or 0) + int(match[2] or 0)


def test_a_secret_that_is_not_set_is_named(tmp_path: Path) -> None:
    done = composed(tmp_path, **SECRETS | {"VALKEY_PASSWORD": ""})
    assert done.returncode != 0
    assert "VALKEY_PASSWORD is missing a value: fill in .env" in done.stderr


def test_the_example_has_no_secret_in_it() -> None:
    given = dict(re.findall(r"^([A-Z_]+)=(.*)$", (ROOT / "compose.env.example").read_text(), re.MULTILINE))
    assert {name for name, value in given.items() if not value} == SECRETS.keys()
    assert {name for name in given if name.startswith(PREFIX)} <= IS_SETTING
    assert ".env\n" in (ROOT / ".gitignore").read_text(), "a filled-in copy is never committed"


def test_commands_and_settings_are_real(services: Mapping[str, Any]) -> None:
    command = get_command(app)
    for name, port in (("api", 8080), ("worker", 8081)):
        service = services[name]
        environ = service["environment"]
        assert {key for key in environ if key.startswith(PREFIX)} <= IS_SETTING
        assert set(open_channels(load(environ), environ)) == {"email", "push", "in_app"}
        called, *arguments = service["command"]
        with command.commands[called].make_context(called, list(arguments)) as context:  # type: ignore[attr-defined]
            assert context.params["port"] == port
            assert context.params["host"] == "0.0.0.0", "Prometheus asks from another container"
        assert f"127.0.0.1:{port}/readyz" in service["healthcheck"]["test"][-1]
    assert services["worker"]["deploy"]["replicas"] == 2


def test_every_service_is_restarted_watched_and_closed(services: Mapping[str, Any]) -> None:
    assert services.keys() == {"api", "worker", "valkey", "mail"}
    for name, service in services.items():
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD", "no shell is needed"
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]
        assert re.search(r":v?\d+\.\d+", service["image"]), "no image without a version"
        for port in service.get("ports", ()):
            assert port["host_ip"] == "127.0.0.1", name
    assert not services["valkey"].get("ports")
    assert services["valkey"]["networks"].keys() == {"broker"}
    assert "outside" not in services["valkey"]["networks"]


def test_the_broker_keeps_its_data_and_never_throws_any_away(services: Mapping[str, Any]) -> None:
    words = services["valkey"]["command"]
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert (options["--appendonly"], options["--maxmemory-policy"]) == ("yes", "noeviction")
    assert options["--requirepass"] == SECRETS["VALKEY_PASSWORD"]
    [volume] = services["valkey"]["volumes"]
    assert (volume["type"], volume["target"]) == ("volume", "/data")
    assert services["api"]["depends_on"]["valkey"]["condition"] == "service_healthy"
    # While it saves, what is written is copied: 109 MB of 109 in a server that was written all over.
    room = int(services["valkey"]["mem_limit"]) / 2**20
    assert 2 * FRAGMENTED * mebibytes(options["--maxmemory"]) <= room


def test_each_is_given_longer_than_its_drain_takes(services: Mapping[str, Any]) -> None:
    send = load(services["worker"]["environment"]).send_timeout.total_seconds()
    assert seconds(services["worker"]["stop_grace_period"]) >= send + 10
    assert seconds(services["api"]["stop_grace_period"]) >= DRAIN + 10


@pytest.mark.slow
async def test_the_health_check_tells_a_ready_process_from_one_that_is_not(
    services: Mapping[str, Any], redis_url: str, tmp_path: Path
) -> None:
    port = free_port()
    _, *words = services["worker"]["healthcheck"]["test"]
    asks = [word.replace(":8081/", f":{port}/") for word in words]
    asks[0] = sys.executable
    assert run(*asks).returncode != 0
    environ = dict(os.environ) | {
        "NOTIFIER_REDIS_URL": redis_url,
        "NOTIFIER_TEMPLATES": str(ROOT / "templates"),
        "PYTHONPATH": str(ROOT),
    }
    worker = subprocess.Popen(
        [sys.executable, "-m", "notifier.cli", "worker", "router", "in_app", "--port", str(port)],
        cwd=tmp_path,
        env=environ,
        stderr=subprocess.DEVNULL,
    )
    try:
        await until(lambda: run(*asks).returncode == 0, every=0.1)
    finally:
        worker.kill()
        worker.wait()
