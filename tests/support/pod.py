"""A pod of rendered manifests as a process: its command, environment and files."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from notifier.local.broker import end_with_parent, server_binary
from tests.support.manifests import ROOT, Doc, named

_IMAGE_ENV = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}


@dataclass(eq=False)
class Pod:
    """`code` is how its process ended when the pod was stopped, and `took` how many seconds that took."""

    name: str
    ip: str
    workload: Doc
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    is_ready: bool = False
    is_ending: bool = False
    restarts: int = 0
    code: int | None = None
    took: float = 0.0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def spec(self) -> Mapping[str, Any]:
        spec: Mapping[str, Any] = self.workload["spec"]["template"]["spec"]
        return spec

    @property
    def container(self) -> Mapping[str, Any]:
        container: Mapping[str, Any] = self.spec["containers"][0]
        return container

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""


@dataclass(frozen=True)
class Machine:
    """Where pods run, and what they are made of.

    `secret` is the Secret of the environment, `files` are those that are mounted, by name and file. `resolve`
    puts addresses in the place of Services' names; `more` is added to the environment of each pod of the
    service.
    """

    docs: Sequence[Doc]
    folder: Path
    secret: Mapping[str, str]
    files: Mapping[str, Mapping[str, str]]
    resolve: Callable[[str], str]
    more: Mapping[str, str]

    def run(self, pod: Pod) -> subprocess.Popen[bytes]:
        mounts = self._mounts(pod)
        environ = self._environ(pod, mounts)
        words = [*pod.container.get("command", ()), *pod.container.get("args", ())]
        words = [_expanded(word, environ).replace("0.0.0.0", pod.ip) for word in words]
        words = [_mounted(word, mounts) for word in words]
        if "command" not in pod.container:
            words = [sys.executable, "-m", "notifier.cli", *words]
        elif words[0] == "valkey-server":
            words[0] = str(server_binary())
        parent = os.getpid()
        with (pod.folder / "log").open("ab") as said:
            return subprocess.Popen(
                words,
                cwd=pod.folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                preexec_fn=lambda: end_with_parent(parent),  # noqa: PLW1509 - no thread is needed in the child
            )

    def _mounts(self, pod: Pod) -> dict[str, Path]:
        """The folder of each mount path."""
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", ())}
        found = {}
        for mount in pod.container.get("volumeMounts", ()):
            volume = volumes.get(mount["name"], {})
            if "configMap" in volume:
                folder = pod.folder / mount["name"]
                if not folder.exists():
                    data = named(self.docs, "ConfigMap", volume["configMap"]["name"])["data"]
                    _write_config_map(folder, data, volume["configMap"].get("items"))
            elif "secret" in volume:
                name = volume["secret"]["secretName"]
                assert name in self.files or volume["secret"].get("optional"), name
                folder = pod.folder / mount["name"]
                folder.mkdir(exist_ok=True)
                for file, text in self.files.get(name, {}).items():
                    (folder / file).write_text(text)
            else:  # a claim outlives its pod; what is empty at first need not
                folder = self.folder / f"{pod.workload['metadata']['name']}-{mount['name']}"
                folder.mkdir(exist_ok=True)
            found[mount["mountPath"]] = folder
        return found

    def _environ(self, pod: Pod, mounts: Mapping[str, Path]) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in pod.container.get("envFrom", ()):
            found |= named(self.docs, "ConfigMap", source["configMapRef"]["name"])["data"]
        for one in pod.container.get("env", ()):
            if "value" in one:
                found[one["name"]] = _expanded(one["value"], found)
                continue
            reference = one["valueFrom"]["secretKeyRef"]
            if reference["key"] in self.secret or not reference.get("optional"):
                found[one["name"]] = self.secret[reference["key"]]
        found = {name: _mounted(self.resolve(value), mounts) for name, value in found.items()}
        return _IMAGE_ENV | found | (self.more if "command" not in pod.container else {})


def _expanded(text: str, environ: Mapping[str, str]) -> str:
    """`$(NAME)` of what was defined before, as Kubernetes does it; what is unknown stays."""
    return re.sub(r"\$\((\w+)\)", lambda found: environ.get(found[1], found[0]), text)


def _mounted(text: str, mounts: Mapping[str, Path]) -> str:
    """Mount paths in it are folders, also behind the `=` of a URL's option."""
    for path, folder in mounts.items():
        text = re.sub(rf"(?:(?<==)|^){re.escape(path)}(?=/|$)", lambda _, folder=folder: str(folder), text)
    return text


def _write_config_map(
    folder: Path, data: Mapping[str, str], items: Sequence[Mapping[str, str]] | None
) -> None:
    """As the kubelet lays it out: a folder with a date, a link to it, and links through that one."""
    dated = folder / "..2026_01_01_00_00_00.000000001"
    for item in items or [{"key": key, "path": key} for key in data]:
        path = dated / item["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(data[item["key"]])
    (folder / "..data").symlink_to(dated.name)
    for entry in dated.iterdir():
        (folder / entry.name).symlink_to(Path("..data") / entry.name)
