"""Backup and restore of run-with-compose.md, with a real server in the place of the container."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
import yaml

from notifier.keys import Keys
from notifier.local.broker import end_with_parent, free_port, server_binary
from notifier.publisher import Publisher
from tests.deploy.test_pages import shell
from tests.support.manifests import ROOT, run
from tests.support.waiting import until

PASSWORD = "v" * 64
# Docker as the page uses it: /data is a folder here, and what runs in the container runs here too.
DOCKER = """#!/bin/bash
set -eu
cd "$(dirname "$0")"
case "$*" in
  "compose exec -T valkey sh -euc "*)
    exec sh -euc "${7//\\/data/$PWD/data}" ;;
  "compose run --rm -T --no-deps valkey sh -euc "*)
    mkdir -p data; exec sh -euc "${9//\\/data/$PWD/data}" ;;
  "volume rm notifier_valkey")
    rm -r data ;;
  "compose down" | "compose up --detach --wait" | "compose exec worker notifier queues") ;;
  *)
    echo "not expected: $*" >&2; exit 1 ;;
esac
"""
VALKEY_CLI = f"""#!/bin/sh
REDISCLI_AUTH={PASSWORD} exec redis-cli -p "$(cat "$(dirname "$0")/port")" "$@"
"""


@contextmanager
def valkey(folder: Path) -> Iterator[redis.Redis]:
    """The server as compose.yaml starts it, with its data in a folder."""
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["valkey"]
    words = [PASSWORD if "VALKEY_PASSWORD" in word else word for word in service["command"][1:]]
    (folder / "data").mkdir(exist_ok=True)
    port, parent = free_port(), os.getpid()
    (folder / "port").write_text(str(port))
    process = subprocess.Popen(
        [str(server_binary()), *words, "--bind", "127.0.0.1", "--port", str(port), "--dir", folder / "data"],
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: end_with_parent(parent),  # noqa: PLW1509 - no thread is needed in the child
    )
    try:
        with redis.Redis(port=port, password=PASSWORD) as client:
            yield client
    finally:
        process.terminate()
        process.wait(20)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def do(kind: str, folder: Path, *, without: str = "nothing") -> subprocess.CompletedProcess[str]:
    """The block of the page, as somebody copies it into a shell; perhaps a line is left out."""
    [block] = [block for block in shell("run-with-compose.md") if block.info.get("compose") == kind]
    text = "".join(line for line in block.text.splitlines(keepends=True) if without not in line)
    environ = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    return run("bash", "-euo", "pipefail", "-c", text, cwd=folder, env=environ)


@pytest.mark.slow
async def test_what_was_backed_up_is_there_after_a_restore(tmp_path: Path) -> None:
    if not shutil.which("redis-cli"):
        if os.environ.get("CI"):
            pytest.fail("CI must have redis-cli")
        pytest.skip("no redis-cli is installed")
    for name, text in (("docker", DOCKER), ("valkey-cli", VALKEY_CLI)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    keys = Keys()
    with valkey(tmp_path) as client:
        await until(lambda: answers(client))
        url = f"redis://:{PASSWORD}@127.0.0.1:{(tmp_path / 'port').read_text()}/0"
        with Publisher(url) as publisher:
            for number in range(50):
                publisher.publish({"id": f"e{number}", "type": "like", "recipient": {"id": f"u{number}"}})
        assert (done := do("backup", tmp_path)).returncode == 0, done.stderr
        client.flushall()
    assert (done := do("restore", tmp_path)).returncode == 0, done.stderr
    with valkey(tmp_path) as client:
        await until(lambda: answers(client))
        assert sum(client.xlen(keys.queue("events", n)) for n in range(keys.partitions)) == 50
        client.set("written later", 1)
    with valkey(tmp_path) as client:  # it is an append-only file like any other
        await until(lambda: answers(client))
        assert client.get("written later") == b"1"
    refused = do("restore", tmp_path, without="volume rm")
    assert refused.returncode != 0
    assert "File exists" in refused.stderr
    with valkey(tmp_path) as client:
        await until(lambda: answers(client))
        assert client.get("written later") == b"1"
