"""The commands of the pages about Kubernetes and Compose: what needs no cluster runs, and names are real."""

from __future__ import annotations

import base64
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from channels.push.vapid import check_public_key, load_key, public_key_of
from notifier.bootstrap import open_channels
from notifier.cli.app import app
from notifier.settings import load
from tests.deploy.test_manifests import settings_of
from tests.docs.blocks import Block, blocks
from tests.support.manifests import ROOT, named, of_kind, overlay, rendered, run, tool, workloads

PAGES = {name: ROOT / "docs/how-to" / name for name in ("deploy-on-kubernetes.md", "run-with-compose.md")}


def shell(page: str) -> Iterator[Block]:
    for block in blocks(PAGES[page]):
        if block.language == "sh":
            yield block


def lines(page: str, program: str) -> list[list[str]]:
    """The commands of a page that begin with this word, as words."""
    texts = (re.sub(r"\\\n\s*", "", block.text).splitlines() for block in shell(page))
    return [shlex.split(line)[1:] for text in texts for line in text if line.startswith(f"{program} ")]


def written(page: str, kind: str, folder: Path) -> dict[str, str]:
    """The settings in the file that a block of the page writes, when it is run."""
    [block] = [block for block in shell(page) if kind in block.info]
    for name in ("compose.env.example", "compose.yaml"):
        shutil.copy(ROOT / name, folder)
    done = run("bash", "-euo", "pipefail", "-c", block.text, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    text = (folder / block.info[kind]).read_text()
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE))


@pytest.mark.parametrize("name", ["dev", "production"])
def test_the_secret_that_the_page_makes_is_what_pods_ask_for(name: str, tmp_path: Path) -> None:
    made = written("deploy-on-kubernetes.md", "secret", tmp_path)
    for doc in workloads(overlay(name)):
        for one in doc["spec"]["template"]["spec"]["containers"][0].get("env", ()):
            if "valueFrom" in one and not one["valueFrom"]["secretKeyRef"].get("optional"):
                assert made[one["valueFrom"]["secretKeyRef"]["key"]]
    [api] = [doc for doc in workloads(overlay("production")) if doc["metadata"]["name"] == "notifier-api"]
    environ = settings_of(api, overlay("production")) | made
    assert set(open_channels(load(environ), environ)) == {"email", "push", "in_app"}
    assert len(base64.b64decode(environ["NOTIFIER_TOKEN_KEYS"].removeprefix("hs256:"))) == 32


def test_kubectl_makes_a_secret_of_it(tmp_path: Path) -> None:
    made = written("deploy-on-kubernetes.md", "secret", tmp_path)
    [create, of_ca] = [words for words in lines("deploy-on-kubernetes.md", "kubectl") if "create" in words]
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----")
    assert run(tool("kubectl"), *of_ca, "--dry-run=client", cwd=tmp_path).returncode == 0
    done = run(tool("kubectl"), *create, "--dry-run=client", "-o", "yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    secret = yaml.safe_load(done.stdout)
    assert secret["metadata"]["name"] == "notifier"
    assert {name: base64.b64decode(value).decode() for name, value in secret["data"].items()} == made


def test_the_public_key_is_that_of_the_private_one(tmp_path: Path) -> None:
    made = written("deploy-on-kubernetes.md", "secret", tmp_path)
    [block] = [block for block in shell("deploy-on-kubernetes.md") if "public" in block.info]
    words = shlex.split(block.text.replace("\\\n", " "))
    assert words[words.index("--entrypoint") + 1] == "python"
    code = words[words.index("-c") + 1]
    done = run(sys.executable, "-c", code, env={"PYTHONPATH": str(ROOT)} | made)
    assert done.returncode == 0, done.stderr
    name, _, public = done.stdout.strip().partition("=")
    assert name == "NOTIFIER_VAPID_PUBLIC_KEY"
    assert check_public_key(public) == public_key_of(load_key(made["NOTIFIER_VAPID_PRIVATE_KEY"]))


def test_what_kubectl_is_told_is_there() -> None:
    docs = [*overlay("dev"), *overlay("production")]
    seen = 0
    for words in lines("deploy-on-kubernetes.md", "kubectl"):
        if "-k" in words:
            assert of_kind(rendered(ROOT / words[-1]), "Deployment")
        elif "-f" in words:
            assert yaml.safe_load((ROOT / words[-1]).read_text())["kind"] == "Namespace"
        for word in words:
            kind, slash, name = word.partition("/")
            if slash and kind in {"deployment", "service"}:
                assert [doc for doc in of_kind(docs, kind.capitalize()) if doc["metadata"]["name"] == name], (
                    word
                )
                seen += 1
        if "port-forward" in words:
            service = words[words.index("port-forward") + 1].partition("/")[2]
            port = int(words[-1].partition(":")[2])
            assert port in {one["port"] for one in named(overlay("dev"), "Service", service)["spec"]["ports"]}
        if "--" in words:
            is_command(words[words.index("--") + 1 :])
    assert seen >= 6


def is_command(words: list[str]) -> None:
    assert words[0] == "notifier"
    groups = {group.name for group in app.registered_groups}
    commands = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    assert words[1] in groups | commands


def test_the_env_file_that_the_page_makes_works(tmp_path: Path) -> None:
    made = written("run-with-compose.md", "env", tmp_path)
    assert all(made.values())
    assert set(open_channels(load(made), made)) == {"email", "push", "in_app"}
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    compose = run(tool("docker-compose"), "-f", tmp_path / "compose.yaml", "config", "--services")
    assert set(compose.stdout.split()) == {"api", "worker", "valkey", "mail"}, compose.stderr


def test_what_compose_is_told_is_there() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    for words in lines("run-with-compose.md", "docker"):
        if words[0] == "volume":
            assert words[1:] in [["rm", f"{compose['name']}_{name}"] for name in compose["volumes"]]
            continue
        assert words[0] == "compose"
        help_text = run(tool("docker-compose"), words[1], "--help").stdout
        options = words[2:]
        if words[1] in {"exec", "run"}:
            service = next(n for n, word in enumerate(words) if n > 1 and not word.startswith("-"))
            assert words[service] in compose["services"]
            program = words[service + 1 :]
            if words[service] == "valkey":
                assert program[0] in {"valkey-cli", "sh"}
            else:
                is_command(program)
            options = words[2:service]
        for word in options:
            if word.startswith("-"):
                assert word.partition("=")[0] in help_text, word
            elif "=" in word:
                assert word.partition("=")[0] in compose["services"]


def test_prometheus_is_told_the_services_and_their_ports() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    [text] = [b.text for b in blocks(PAGES["run-with-compose.md"]) if b.language == "yaml"]
    [job] = yaml.safe_load(text)["scrape_configs"]
    found = {name: sd["port"] for sd in job["dns_sd_configs"] for name in sd["names"]}
    assert found.keys() == {"worker", "api"}
    for name, port in found.items():
        command = compose["services"][name]["command"]
        assert command[-4:] == ["--host", "0.0.0.0", "--port", str(port)]
        assert "outside" in compose["services"][name]["networks"]


def test_the_numbers_of_the_page_are_those_of_the_manifests() -> None:
    page = PAGES["deploy-on-kubernetes.md"].read_text()
    docs = overlay("production")
    scalers = {doc["metadata"]["name"]: doc["spec"] for doc in of_kind(docs, "ScaledObject")}
    for name, waiting, most in (
        ("email", 500, 8),
        ("push", 500, 8),
        ("router", 1_000, 4),
        ("in-app", 1_000, 4),
    ):
        spec = scalers[f"notifier-{name}"]
        targets = [int(trigger["metadata"]["targetValue"]) for trigger in spec["triggers"]]
        assert (targets, spec["minReplicaCount"], spec["maxReplicaCount"]) == ([waiting, 30], 2, most)
        assert f"{waiting:,}" in page
    graces = {
        doc["metadata"]["name"]: doc["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        for doc in of_kind(docs, "Deployment")
    }
    assert graces["notifier-api"] == 45
    assert set(graces.values()) == {45, 90}
    assert "its pod has 90 s" in page
    assert "its pod has 45 s" in page
