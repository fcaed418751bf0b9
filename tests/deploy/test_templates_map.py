"""k8s/templates_map.py: folders become a ConfigMap and come back, and nothing is forgotten."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.manifests import K8S, ROOT, Doc, named, of_kind, overlay, run, tool, workloads

SCRIPT = K8S / "templates_map.py"
TEMPLATES = ROOT / "templates"


def write(folder: Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, SCRIPT, folder)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TEMPLATES, tmp_path / "templates"))


def test_the_map_of_the_templates_is_up_to_date(copied: Path) -> None:
    assert write(copied).returncode == 0
    ours, fresh = (folder / "kustomization.yaml" for folder in (TEMPLATES, copied))
    assert ours.read_text() == fresh.read_text(), "run `make k8s`"


def test_a_template_more_or_less_is_noticed(copied: Path) -> None:
    before = (TEMPLATES / "kustomization.yaml").read_text()
    (copied / "like" / "email.fr.jinja").write_text("{% block subject %}{% endblock %}")
    write(copied)
    assert "like__email.fr.jinja" in (copied / "kustomization.yaml").read_text()
    (copied / "like" / "email.fr.jinja").unlink()
    (copied / "like" / "push.jinja").unlink()
    write(copied)
    assert (copied / "kustomization.yaml").read_text() != before


@pytest.mark.parametrize("name", ["dev", "production"])
def test_each_pod_gets_every_template_where_it_belongs(name: str) -> None:
    docs = overlay(name)
    ours = {path for path in TEMPLATES.rglob("*") if path.suffix in {".jinja", ".json", ".toml"}}
    wanted = {path.relative_to(TEMPLATES).as_posix(): path.read_text() for path in ours}
    pods = [doc for doc in workloads(docs) if doc["metadata"]["name"].startswith("notifier-")]
    assert len(pods) == 6
    for doc in pods:
        assert mounted(doc, docs) == wanted


def mounted(doc: Doc, docs: list[Doc]) -> dict[str, str]:
    """What lies below the mount path."""
    [volume] = [one for one in doc["spec"]["template"]["spec"]["volumes"] if one["name"] == "templates"]
    data = named(docs, "ConfigMap", volume["configMap"]["name"])["data"]
    items = volume["configMap"]["items"]
    assert {item["key"] for item in items} == data.keys()
    return {item["path"]: data[item["key"]] for item in items}


def test_a_change_of_a_template_is_a_new_config_map() -> None:
    """Its name ends in a hash, so pods are replaced one by one, and can be rolled back."""
    [found] = [d for d in of_kind(overlay("dev"), "ConfigMap") if "templates" in d["metadata"]["name"]]
    assert found["metadata"]["name"] != "notifier-templates"
    assert len(yaml.safe_dump(found)) < 1_000_000


def test_a_folder_of_ones_own_renders(tmp_path: Path) -> None:
    (tmp_path / "mine" / "order.shipped").mkdir(parents=True)
    (tmp_path / "mine" / "order.shipped" / "email.jinja").write_text("{% block subject %}a{% endblock %}\n")
    (tmp_path / "mine" / "order.shipped" / "notes.txt").write_text("is not read")
    assert write(tmp_path / "mine").returncode == 0
    done = run(tool("kubectl"), "kustomize", tmp_path / "mine")
    assert done.returncode == 0, done.stderr
    [config] = yaml.safe_load_all(done.stdout)
    assert config["data"] == {"order.shipped__email.jinja": "{% block subject %}a{% endblock %}\n"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ((), "there is no template"),
        (("a b/email.jinja",), "a b/email.jinja: only letters"),
        (("a/b__c.jinja", "a__b/c.jinja"), "would have the same key"),
    ],
)
def test_what_can_not_be_a_config_map_is_named(files: tuple[str, ...], said: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    done = write(tmp_path)
    assert (done.returncode, done.stderr.count("\n"), said in done.stderr) == (1, 1, True), done.stderr
    assert not (tmp_path / "kustomization.yaml").exists()


def test_too_much_for_a_config_map_is_told(tmp_path: Path) -> None:
    (tmp_path / "like").mkdir()
    (tmp_path / "like" / "email.jinja").write_text("x" * 1_000_001)
    assert "a ConfigMap takes 1000000" in write(tmp_path).stderr
