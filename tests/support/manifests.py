"""The manifests of k8s/ as kubectl renders them, and the programs that judge them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
K8S = ROOT / "k8s"
_TOOLS = ROOT / ".peers" / "venv" / "manifests" / "bin"

Doc = Mapping[str, Any]


def tool(name: str) -> Path:
    """A program that `.ci/run` installs. Skips the test where it is missing, and fails it in CI."""
    found = _TOOLS / name
    if not found.exists():
        if os.environ.get("CI"):
            pytest.fail(f"CI must have {found}")
        pytest.skip(f"{name} is not installed; `CI= .ci/run` does that")
    return found


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """What it said, without proxies and settings of ours."""
    return subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


@cache
def rendered(folder: Path) -> Sequence[Doc]:
    """What `kubectl apply -k` would send."""
    done = run(tool("kubectl"), "kustomize", folder)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def overlay(name: str) -> Sequence[Doc]:
    return rendered(K8S / "overlays" / name)


def of_kind(docs: Iterable[Doc], *kinds: str) -> list[Doc]:
    return [doc for doc in docs if doc["kind"] in kinds]


def named(docs: Iterable[Doc], kind: str, name: str) -> Doc:
    [found] = [doc for doc in of_kind(docs, kind) if doc["metadata"]["name"] == name]
    return found


def workloads(docs: Iterable[Doc]) -> list[Doc]:
    """Whatever has pods."""
    return of_kind(docs, "Deployment", "StatefulSet")


def pod_labels(workload: Doc) -> Mapping[str, str]:
    labels: Mapping[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """A label selector as Kubernetes reads it; an empty one selects everything."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for one in selector.get("matchExpressions", ()):
        is_in = labels.get(one["key"]) in one["values"]
        if is_in != {"In": True, "NotIn": False}[one["operator"]]:
            return False
    return True


def ports(workload: Doc) -> dict[str, int]:
    """Of its containers, by name."""
    containers = workload["spec"]["template"]["spec"]["containers"]
    return {port["name"]: port["containerPort"] for one in containers for port in one.get("ports", ())}
