"""k8s/ without a cluster: what kubectl renders is what Kubernetes and operators take, and fits our code."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml
from typer.main import get_command

from channels.email import EmailSettings
from channels.push.endpoint import NOT_PUBLIC, PUBLIC
from channels.push.web_push import WebPushSettings
from notifier.api.server import DRAIN
from notifier.bootstrap import open_channels
from notifier.cli.app import app
from notifier.settings import PREFIX, Settings, load
from notifier.worker import chosen_roles
from tests.support.manifests import (
    K8S,
    ROOT,
    Doc,
    named,
    of_kind,
    overlay,
    pod_labels,
    ports,
    rendered,
    run,
    selects,
    tool,
    workloads,
)

FRAGMENTED = 1.13
"""What a server takes of the machine for a byte of its data, as measured under churn."""
OVERLAYS = ("dev", "production")
VERSIONS = ("1.30.0", "1.37.0")  # the oldest that has `preStop.sleep` switched on, and the newest known here
SCHEMAS: Mapping[str, Any] = {
    kind: schema
    for path in (ROOT / "tests/deploy/schemas").glob("*.yaml")
    for kind, schema in yaml.safe_load(path.read_text()).items()
}
ROLES = {"router", "email", "push", "in-app", "dead-letters"}
IS_SETTING = {
    *(PREFIX + name.upper() for name in Settings.model_fields),
    *(str(field.validation_alias) for field in EmailSettings.model_fields.values()),
    *(str(field.validation_alias) for field in WebPushSettings.model_fields.values()),
}


@pytest.fixture(params=OVERLAYS)
def docs(request: pytest.FixtureRequest) -> Sequence[Doc]:
    return overlay(request.param)


def without_keda(folder: Path) -> Sequence[Doc]:
    """The overlay of production with the other component."""
    production = K8S / "overlays" / "production"
    text = (production / "kustomization.yaml").read_text()
    text = text.replace("../../components/keda # or ../../components/hpa", "../../components/hpa")
    made = folder / "k8s" / "overlays" / "production"
    made.parent.mkdir(parents=True)
    for name in ("base", "components"):
        (folder / "k8s" / name).symlink_to(K8S / name)
    made.mkdir()
    for path in production.glob("*.yaml"):
        (made / path.name).write_text(path.read_text())
    # kustomize follows no link out of a folder, but a folder may be reached by any way.
    up = os.path.relpath(K8S, made)
    (made / "kustomization.yaml").write_text(text.replace("../..", up))
    return rendered(made)


def container(workload: Doc) -> Mapping[str, Any]:
    [only] = workload["spec"]["template"]["spec"]["containers"]
    found: Mapping[str, Any] = only
    return found


def mebibytes(size: str) -> int:
    """Of a size as Valkey, Kubernetes and Compose write it."""
    number, unit = re.fullmatch(r"(\d+)(\w+)", size.lower()).groups()  # type: ignore[union-attr]
    return int(number) * {"mb": 1, "mi": 1, "m": 1, "g": 1024, "gi": 1024}[unit]


def ours(docs: Sequence[Doc]) -> list[Doc]:
    return [doc for doc in workloads(docs) if pod_labels(doc)["app.kubernetes.io/name"] == "notifier"]


def component(workload: Doc) -> str:
    return pod_labels(workload)["app.kubernetes.io/component"]


# What Kubernetes and the operators take.


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_has_a_strict_schema_and_fits_it(
    docs: Sequence[Doc], version: str, tmp_path: Path
) -> None:
    known = [doc for doc in docs if doc["kind"] not in SCHEMAS]
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump_all(known))
    done = run(tool("kubernetes-validate"), "--strict", "-k", version, path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed for resource") == len(known), done.stdout + done.stderr


def check(doc: Doc) -> None:
    jsonschema.Draft202012Validator(SCHEMAS[doc["kind"]]).validate(doc)


def test_objects_of_operators_fit_their_schemas(docs: Sequence[Doc]) -> None:
    for doc in of_kind(docs, *SCHEMAS):
        check(doc)


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_the_schemas_refuse_what_they_do_not_know(kind: str) -> None:
    doc = copy.deepcopy(of_kind(overlay("production"), kind)[0])
    check(doc)
    doc["spec"]["unheardOf"] = 1
    with pytest.raises(jsonschema.ValidationError, match="unheardOf"):
        check(doc)


@pytest.mark.slow
def test_production_without_keda_scales_by_cpu(tmp_path: Path) -> None:
    docs = without_keda(tmp_path)
    assert not of_kind(docs, "ScaledObject")
    targets = {doc["spec"]["scaleTargetRef"]["name"] for doc in of_kind(docs, "HorizontalPodAutoscaler")}
    assert targets == {f"notifier-{name}" for name in ("api", "router", "email", "push", "in-app")}
    for name in targets:
        assert "replicas" not in named(docs, "Deployment", name)["spec"], "who scales decides"


# How it fits the code.


def test_there_is_one_deployment_for_each_role_and_one_for_the_api(docs: Sequence[Doc]) -> None:
    assert {component(doc) for doc in ours(docs)} == {"api", *ROLES}
    for doc in ours(docs):
        assert doc["metadata"]["name"] == f"notifier-{component(doc)}"
        assert doc["spec"]["selector"]["matchLabels"] == pod_labels(doc)


def test_every_command_is_one_of_the_command_line(docs: Sequence[Doc]) -> None:
    command = get_command(app)
    channels = dict.fromkeys(("email", "push", "in_app"))
    for doc in ours(docs):
        assert "command" not in container(doc), "the image has its entry point"
        name, *arguments = container(doc)["args"]
        with command.commands[name].make_context(name, list(arguments)) as context:  # type: ignore[attr-defined]
            assert context.params["host"] == "0.0.0.0"
            assert context.params["port"] in ports(doc).values()
            if name == "worker":
                assert chosen_roles(context.params["roles"], channels) == (component(doc).replace("-", "_"),)  # type: ignore[arg-type]


def settings_of(doc: Doc, docs: Sequence[Doc]) -> dict[str, str]:
    """The environment of a workload; what lies in the secret is made up."""
    made_up = {
        "NOTIFIER_API_KEYS": "publish:" + "p" * 32,
        "NOTIFIER_TOKEN_KEYS": "hs256:" + "A" * 43 + "=",
        "NOTIFIER_REDIS_URL": "rediss://:secret@redis.example.com:6379/0",
        "NOTIFIER_SMTP_URL": "smtps://user:secret@mail.example.com",
        "NOTIFIER_VAPID_PRIVATE_KEY": "B" * 43,
        "NOTIFIER_VAPID_PUBLIC_KEY": "",
        "VALKEY_PASSWORD": "secret",
    }
    found: dict[str, str] = {}
    for source in container(doc).get("envFrom", ()):
        found |= named(docs, "ConfigMap", source["configMapRef"]["name"])["data"]
    for one in container(doc).get("env", ()):
        if "value" in one:
            found[one["name"]] = one["value"]
        else:
            assert one["valueFrom"]["secretKeyRef"]["name"] == "notifier"
            found[one["name"]] = made_up[one["valueFrom"]["secretKeyRef"]["key"]]
    return found


def test_every_setting_exists_and_its_value_can_work(docs: Sequence[Doc]) -> None:
    for doc in ours(docs):
        environ = settings_of(doc, docs)
        assert {name for name in environ if name.startswith(PREFIX)} <= IS_SETTING
        environ["NOTIFIER_REDIS_URL"] = environ["NOTIFIER_REDIS_URL"].replace("$(VALKEY_PASSWORD)", "secret")
        assert set(open_channels(load(environ), environ)) == {"email", "push", "in_app"}


def test_each_role_knows_just_the_secrets_it_needs(docs: Sequence[Doc]) -> None:
    broker = {"VALKEY_PASSWORD"} if of_kind(docs, "StatefulSet") else {"NOTIFIER_REDIS_URL"}
    smtp = set() if of_kind(docs, "StatefulSet") else {"NOTIFIER_SMTP_URL"}
    vapid = {"NOTIFIER_VAPID_PRIVATE_KEY"}
    wanted = {
        "api": {"NOTIFIER_API_KEYS", "NOTIFIER_TOKEN_KEYS", "NOTIFIER_VAPID_PUBLIC_KEY"},
        "router": set(), "email": smtp, "push": vapid, "in-app": set(), "dead-letters": smtp | vapid,
    }  # fmt: skip
    for doc in ours(docs):
        knows = {
            one["valueFrom"]["secretKeyRef"]["key"] for one in container(doc)["env"] if "valueFrom" in one
        }
        assert knows == wanted[component(doc)] | broker, component(doc)


def test_every_secret_is_explained_to_the_reader(docs: Sequence[Doc]) -> None:
    page = (ROOT / "docs/how-to/deploy-on-kubernetes.md").read_text()
    for doc in workloads(docs):
        for one in container(doc).get("env", ()):
            if "valueFrom" in one:
                assert f"`{one['valueFrom']['secretKeyRef']['key']}`" in page


def test_settings_hold_no_secret(docs: Sequence[Doc]) -> None:
    assert not of_kind(docs, "Secret")
    for doc in of_kind(docs, "ConfigMap"):
        for name, value in doc["data"].items():
            assert "KEY" not in name
            assert not re.search(r"://[^/\s]*:[^/\s]*@", value), name


def test_a_pod_is_given_longer_than_its_drain_takes(docs: Sequence[Doc]) -> None:
    for doc in ours(docs):
        spec = doc["spec"]["template"]["spec"]
        environ = settings_of(doc, docs) | {"NOTIFIER_REDIS_URL": "redis://127.0.0.1"}
        drain = load(environ).send_timeout.total_seconds()
        if component(doc) == "api":
            drain = container(doc)["lifecycle"]["preStop"]["sleep"]["seconds"] + DRAIN
        assert spec["terminationGracePeriodSeconds"] >= drain + 10


def test_probes_ask_ports_that_are_open(docs: Sequence[Doc]) -> None:
    for doc in workloads(docs):
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe := container(doc).get(kind):
                assert (probe.get("httpGet") or probe["tcpSocket"])["port"] in ports(doc)
    for doc in ours(docs):
        asked = {
            kind: container(doc)[kind]["httpGet"]["path"] for kind in container(doc) if kind.endswith("Probe")
        }
        assert asked == {"startupProbe": "/readyz", "livenessProbe": "/livez", "readinessProbe": "/readyz"}


# Names that refer to each other.


def test_services_monitors_budgets_and_scalers_find_what_they_name(docs: Sequence[Doc]) -> None:
    pods = workloads(docs)
    for service in of_kind(docs, "Service"):
        [found] = [
            doc for doc in pods if selects({"matchLabels": service["spec"]["selector"]}, pod_labels(doc))
        ]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports(found).keys()
    budgets = of_kind(docs, "PodDisruptionBudget")
    for budget in budgets:
        [found] = [doc for doc in pods if selects(budget["spec"]["selector"], pod_labels(doc))]
        assert found["metadata"]["name"] == budget["metadata"]["name"]
    assert len(budgets) == len(ours(docs))
    for scaler in of_kind(docs, "ScaledObject", "HorizontalPodAutoscaler"):
        target = named(docs, "Deployment", scaler["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in target["spec"], "who scales decides"
    for monitor in of_kind(docs, "ServiceMonitor"):
        found = [
            doc
            for doc in of_kind(docs, "Service")
            if selects(monitor["spec"]["selector"], doc["metadata"]["labels"])
        ]
        assert found
        named_ports = {port["name"] for doc in found for port in doc["spec"]["ports"]}
        assert {one["port"] for one in monitor["spec"]["endpoints"]} <= named_ports
    for monitor in of_kind(docs, "PodMonitor"):
        found = [doc for doc in pods if selects(monitor["spec"]["selector"], pod_labels(doc))]
        assert {component(doc) for doc in found} == ROLES
        for doc in found:
            assert {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]} <= ports(doc).keys()


def test_config_maps_volumes_and_accounts_are_there(docs: Sequence[Doc]) -> None:
    maps = {doc["metadata"]["name"] for doc in of_kind(docs, "ConfigMap")}
    accounts = {doc["metadata"]["name"] for doc in of_kind(docs, "ServiceAccount")}
    for doc in workloads(docs):
        spec = doc["spec"]["template"]["spec"]
        assert spec["serviceAccountName"] in accounts
        volumes = {volume["name"]: volume for volume in spec.get("volumes", ())}
        claims = {claim["metadata"]["name"] for claim in doc["spec"].get("volumeClaimTemplates", ())}
        mounts = {mount["name"] for mount in container(doc).get("volumeMounts", ())}
        assert mounts == volumes.keys() | claims
        named_maps = {v["configMap"]["name"] for v in volumes.values() if "configMap" in v}
        named_maps |= {source["configMapRef"]["name"] for source in container(doc).get("envFrom", ())}
        assert named_maps <= maps
    for account in of_kind(docs, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    assert not of_kind(docs, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")


def test_keda_reads_the_api_through_its_service() -> None:
    docs = overlay("production")
    service = named(docs, "Service", "notifier-api")
    host = f"notifier-api.{service['metadata']['namespace']}.svc.cluster.local"
    partitions = 16  # the default of NOTIFIER_PARTITIONS
    scalers = of_kind(docs, "ScaledObject")
    assert {doc["spec"]["scaleTargetRef"]["name"] for doc in scalers} == {
        f"notifier-{role}" for role in ROLES - {"dead-letters"}
    }
    for scaler in scalers:
        assert 2 <= scaler["spec"]["minReplicaCount"] < scaler["spec"]["maxReplicaCount"] <= partitions
        queue = scaler["spec"]["scaleTargetRef"]["name"].removeprefix("notifier-").replace("-", "_")
        queue = "events" if queue == "router" else queue
        waiting, oldest = (trigger["metadata"] for trigger in scaler["spec"]["triggers"])
        assert waiting["valueLocation"] == f'notifier_queue_entries{{queue="{queue}",state="waiting"}}'
        assert oldest["valueLocation"] == f'notifier_queue_oldest_seconds{{queue="{queue}"}}'
        for metadata in (waiting, oldest):
            url = urlsplit(metadata["url"])
            assert (url.hostname, url.port or 80, url.path) == (
                host,
                service["spec"]["ports"][0]["port"],
                "/metrics",
            )
    assert load(settings_of(named(docs, "Deployment", "notifier-api"), docs)).metrics_open


# What it may do.


def test_pods_fit_the_restricted_standard(docs: Sequence[Doc]) -> None:
    """kubernetes.io/docs/concepts/security/pod-security-standards, and a root that can't be written."""
    [namespace] = of_kind(docs, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for doc in workloads(docs):
        spec = doc["spec"]["template"]["spec"]
        assert (
            not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & spec.keys()
        )
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] >= 10_000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container(doc)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        for volume in spec.get("volumes", ()):
            assert volume.keys() - {"name"} <= {"configMap", "emptyDir", "secret"}


def test_images_have_a_version_and_pods_a_size(docs: Sequence[Doc]) -> None:
    for doc in workloads(docs):
        _, _, tag = container(doc)["image"].rpartition("/")[2].partition(":")
        assert re.match(r"v?\d+\.\d+", tag), container(doc)["image"]
        resources = container(doc)["resources"]
        assert resources["requests"].keys() == {"cpu", "memory", "ephemeral-storage"}
        assert resources["limits"].keys() == {"memory", "ephemeral-storage"}


def test_the_broker_of_dev_has_room_for_a_copy_of_its_data() -> None:
    broker = container(named(overlay("dev"), "StatefulSet", "valkey"))
    limit, maxmemory = broker["resources"]["limits"]["memory"], broker["args"][-3]
    assert broker["args"][-4] == "--maxmemory"
    assert 2 * FRAGMENTED * mebibytes(maxmemory) <= mebibytes(limit)


def test_pods_are_spread_and_replaced_one_by_one(docs: Sequence[Doc]) -> None:
    for doc in ours(docs):
        spread = doc["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert {one["topologyKey"] for one in spread} == {
            "topology.kubernetes.io/zone",
            "kubernetes.io/hostname",
        }
        for one in spread:
            assert selects(one["labelSelector"], pod_labels(doc))
            assert "app.kubernetes.io/component" in one["matchLabelKeys"]
        assert doc["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


OUTSIDE = {
    str(block): {str(inside) for inside in NOT_PUBLIC if inside.version == block.version} for block in PUBLIC
}
"""Where a worker that sends to push services may connect to, as the code has it: each block less these."""


def reaches(docs: Sequence[Doc], workload: Doc) -> set[str]:
    """Where its pods may connect to, in words: `dns`, `valkey:redis`, `10.0.0.0/8:6379`."""
    found: set[str] = set()
    for policy in of_kind(docs, "NetworkPolicy"):
        spec = policy["spec"]
        if "Egress" not in spec["policyTypes"] or not selects(spec["podSelector"], pod_labels(workload)):
            continue
        for rule in spec.get("egress", ()):
            assert rule.get("to"), "a rule without peers allows everything"
            assert rule.get("ports"), "a rule without ports allows all of them"
            for peer in rule["to"]:
                found |= {f"{_peer(peer)}:{port['port']}" for port in rule["ports"]}
    return found


def _peer(peer: Doc) -> str:
    if block := peer.get("ipBlock"):
        if set(block.get("except", ())) == OUTSIDE.get(block["cidr"]):
            return f"outside {block['cidr']}"
        return "anywhere" if block["cidr"] in {"0.0.0.0/0", "::/0"} else str(block["cidr"])
    if "namespaceSelector" in peer:
        return "dns" if peer["podSelector"] == {"matchLabels": {"k8s-app": "kube-dns"}} else "?"
    return str(peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"])


@pytest.mark.parametrize(
    ("name", "broker", "mail"),
    [
        ("dev", {"valkey:redis"}, {"mailpit:smtp"}),
        ("production", {"10.0.0.0/8:6379"}, {"anywhere:465", "anywhere:587"}),
    ],
)
def test_each_role_reaches_just_what_it_needs(name: str, broker: set[str], mail: set[str]) -> None:
    docs, all_need, push = overlay(name), broker | {"dns:53"}, {f"outside {b}:443" for b in OUTSIDE}
    needs = {"email": mail, "push": push, "dead-letters": mail | push}
    for doc in ours(docs):
        assert reaches(docs, doc) == all_need | needs.get(component(doc), set()), component(doc)


def test_every_pod_is_closed_but_for_who_is_named(docs: Sequence[Doc]) -> None:
    policies = of_kind(docs, "NetworkPolicy")
    for doc in workloads(docs):
        on_it = [p["spec"] for p in policies if selects(p["spec"]["podSelector"], pod_labels(doc))]
        assert {"Ingress", "Egress"} <= {kind for spec in on_it for kind in spec["policyTypes"]}
        for spec in on_it:
            for rule in spec.get("ingress", ()):
                assert rule.get("from"), "a rule without peers lets everybody in"
                assert rule.get("ports"), "a rule without ports opens all of them"
        if doc in ours(docs) and component(doc) != "api":
            opened = {str(rule["from"]) for spec in on_it for rule in spec.get("ingress", ())}
            assert all("'monitoring'" in peers for peers in opened), "a worker answers Prometheus alone"


def test_policies_name_ports_that_pods_have(docs: Sequence[Doc]) -> None:
    pods = workloads(docs)
    for policy in of_kind(docs, "NetworkPolicy"):
        on = [doc for doc in pods if selects(policy["spec"]["podSelector"], pod_labels(doc))]
        assert on, policy["metadata"]["name"]
        inward = {port["port"] for rule in policy["spec"].get("ingress", ()) for port in rule["ports"]}
        assert inward <= {port for doc in on for port in ports(doc)}
        for rule in policy["spec"].get("egress", ()):
            peers = [
                peer["podSelector"]
                for peer in rule["to"]
                if "podSelector" in peer and "namespaceSelector" not in peer
            ]
            for peer in peers:
                [target] = [doc for doc in pods if selects(peer, pod_labels(doc))]
                assert {port["port"] for port in rule["ports"]} <= ports(target).keys()


# What is written from other files.


def test_the_rules_are_those_of_the_rules_file() -> None:
    [rule] = of_kind(overlay("production"), "PrometheusRule")
    wanted = yaml.safe_load((ROOT / "observability" / "alerts.yaml").read_text())
    assert rule["spec"] == wanted, "run `make k8s`"
