"""What a run asks of Kubernetes fits the published schemas, as sent and as made."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dask
import dask_kubernetes
import jsonschema
import kubernetes_validate
import pytest
import yaml

from cac_core.cluster_settings import ClusterSettings
from flows.runtime.kubernetes import cluster_spec

_OPTIONS: dict[str, Any] = {
    "image": "registry.example/cac-cohort:1",
    "resources": {"limits": {"memory": "4Gi", "cpu": "1"}, "requests": {"cpu": 1}},
    "env": {"AWS_ENDPOINT_URL": "https://s3.example"},
}
_CONFIG = {"distributed.scheduler.allowed-failures": 0}


def settings(**changes: Any) -> ClusterSettings:
    return ClusterSettings(kind="kubernetes", options=_OPTIONS, **changes)


def require_crd(made: dict[str, Any]) -> None:
    """Check an object against its definition (CRD) in the operator; unknown fields are faults.

    Raises
    ------
    jsonschema.ValidationError
        If it does not fit.
    """
    crds = Path(dask_kubernetes.__file__).parent / "operator/deployment/helm"
    (file,) = crds.glob(f"*/crds/{made['kind'].lower()}.yaml")
    (version,) = yaml.safe_load(file.read_text())["spec"]["versions"]
    assert made["apiVersion"] == f"kubernetes.dask.org/{version['name']}"
    body = {name: made[name] for name in made.keys() - {"apiVersion", "kind", "metadata"}}
    jsonschema.Draft202012Validator(_closed(version["schema"]["openAPIV3Schema"])).validate(body)


def _closed(schema: Any) -> Any:
    """The schema, without room for fields that it does not name: a server would drop them."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def pods(made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Scheduler and worker of a DaskCluster as the pods that the operator makes of them."""
    return {
        part: {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": part},
            "spec": made["spec"][part]["spec"],
        }
        for part in ("scheduler", "worker")
    }


def require_pods(made: dict[str, Any]) -> None:
    for pod in pods(made).values():
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "scheduler"},
        "spec": made["spec"]["scheduler"]["service"],
    }
    kubernetes_validate.validate(service, kubernetes_validate.latest_version(), strict=True)


def test_objects_fit_the_published_schemas() -> None:
    made = cluster_spec(settings(workers=8, worker_resources={"GPU": 1}), _CONFIG)
    require_crd(made)
    require_pods(made)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"image": 3}, "image"),
        ({"env": [{"value": "a"}]}, "name"),
        ({"resources": {"limits": ["cpu"]}}, "limits"),
        ({"idle_timeout": "soon"}, "idleTimeout"),
    ],
)
def test_the_schemas_find_faults(options: dict[str, Any], where: str) -> None:
    wrong = ClusterSettings(kind="kubernetes", options=_OPTIONS | options)
    with pytest.raises(jsonschema.ValidationError) as reported:
        require_crd(cluster_spec(wrong, _CONFIG))
    assert where in str(reported.value.message) + str(list(reported.value.path))


def test_an_unknown_field_is_a_fault() -> None:
    made = cluster_spec(settings(), _CONFIG)
    made["spec"]["worker"]["spec"]["containers"][0]["banana"] = 1
    with pytest.raises(jsonschema.ValidationError, match="banana"):
        require_crd(made)
    with pytest.raises(kubernetes_validate.ValidationError, match="banana"):
        require_pods(made)


def test_pods_start_what_the_installed_dask_has() -> None:
    """The operator's own defaults call `dask-worker`, which is not installed any more."""
    made = cluster_spec(settings(worker_resources={"GPU": 1, "DISK": 2.5}), _CONFIG)
    for part, pod in pods(made).items():
        (container,) = pod["spec"]["containers"]
        program, command = container["command"]
        assert (program, command) == ("dask", part)
        shown = subprocess.run(
            [Path(sys.executable).with_name(program), command, "--help"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        known = {word for word in shown.replace("/", " ").split() if word.startswith("--")}
        assert {word for word in container["args"] if word.startswith("--")} <= known
        variables = {item["name"]: item["value"] for item in container["env"]}
        assert dask.config.deserialize(variables["DASK_INTERNAL_INHERIT_CONFIG"]) == _CONFIG
        assert variables["AWS_ENDPOINT_URL"] == "https://s3.example"
    assert "GPU=1,DISK=2.5" in container["args"]


def test_a_specification_of_the_site_is_taken_as_it_is(tmp_path: Path) -> None:
    made = cluster_spec(settings(), _CONFIG)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(made))
    options = {"custom_cluster_spec": str(tmp_path / "own.yaml")}
    assert cluster_spec(ClusterSettings(kind="kubernetes", options=options), _CONFIG) == made


class _Api(BaseHTTPRequestHandler):
    """An API server that keeps objects, with nobody who acts on them."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, Any]

    def _answer(self, code: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path.strip("/") == "version":
            self._answer(200, {"major": "1", "minor": "35", "gitVersion": "v1.35.0"})
        elif "/namespaces/" in path and "dask" in path:
            name = query.rpartition("metadata.name%3D")[2].partition("&")[0]
            found = [one for key, one in self.objects.items() if not name or key == name]
            if path.rpartition("/")[2] in self.objects:
                self._answer(200, self.objects[path.rpartition("/")[2]])
            elif path.endswith("daskclusters"):
                self._answer(200, {"kind": "DaskClusterList", "items": found})
            else:
                self._answer(404, {"kind": "Status", "code": 404, "message": "not found"})
        else:
            self._answer(200, {"kind": "List", "items": [], "resources": [], "groups": []})

    def do_POST(self) -> None:
        made = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posted.append(made)  # type: ignore[attr-defined]
        self.objects[made["metadata"]["name"]] = made
        self._answer(201, made)

    def do_DELETE(self) -> None:
        self.objects.pop(self.path.partition("?")[0].rpartition("/")[2], None)
        self._answer(200, {"kind": "Status", "status": "Success"})

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """An API server without the operator: its kubeconfig, and the objects that it was sent."""
    handler = type("Handler", (_Api,), {"objects": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.posted = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        file = tmp_path / "kubeconfig"
        file.write_text(kubeconfig(server.server_port))
        yield file, server.posted  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


def kubeconfig(port: int) -> str:
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    user = {"name": "u", "user": {"token": "t"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "default"}}
    lists = {"clusters": [cluster], "users": [user], "contexts": [context]}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "x"} | lists)


_RUN = """
import json, sys
from cac_core.cluster_settings import ClusterSettings
from cac_core.errors import CacError
from flows.runtime.dask_cluster import cluster_client
try:
    with cluster_client(ClusterSettings(kind="kubernetes", options=json.loads(sys.argv[1]))):
        print("started")
except CacError as error:
    print(error)
"""


def run(options: dict[str, Any], **variables: str) -> subprocess.CompletedProcess[str]:
    """Start a cluster in a process of its own; the library cleans up when one ends."""
    return subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps(options)],
        env=variables, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip


def test_an_absent_operator_is_told_and_what_was_sent_fits(
    api: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    file, posted = api
    done = run(_OPTIONS | {"resource_timeout": 1}, KUBECONFIG=str(file), HOME=str(tmp_path))
    assert "cannot be started in Kubernetes" in done.stdout and "operator" in done.stdout.lower()
    assert len(done.stdout.splitlines()) == 1 and not done.stderr
    (made,) = posted
    sent = made | {"metadata": {"name": made["metadata"]["name"]}}
    require_crd(sent)
    require_pods(sent)


def test_a_cluster_that_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(kubeconfig(1))
    for variables in ({}, {"KUBECONFIG": str(tmp_path / "kubeconfig")}):
        done = run(_OPTIONS, HOME=str(tmp_path), **variables)
        assert "No Kubernetes cluster answers" in done.stdout
        assert len(done.stdout.splitlines()) == 1 and not done.stderr
