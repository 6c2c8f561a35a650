"""Who can speak to whom in infra/kubernetes: the pairs below, and nobody else."""

from __future__ import annotations

from itertools import product

import pytest
from manifests.objects import INFRA, OVERLAYS, pods_of, read, rendered
from manifests.policies import Peer, allowed

PORTS = {8270, 8280, 5000, 6379, 8265, 10001, 8000, 443, 5432, 6443, 22}
"""Every port that something here listens on, and some more."""

ENVOY = "gateway.envoyproxy.io/owning-gateway"

ELSEWHERE = [
    Peer("kuberay", {"app.kubernetes.io/name": "kuberay-operator"}, "kuberay-system"),
    Peer("prometheus", {"app.kubernetes.io/name": "prometheus"}, "monitoring"),
    Peer("envoy", {f"{ENVOY}-namespace": "zsbir-gateway", f"{ENVOY}-name": "zsbir"}, "envoy-gateway-system"),
    Peer("another gateway's envoy", {f"{ENVOY}-namespace": "another-team", f"{ENVOY}-name": "zsbir"}, "envoy-gateway-system"),
    Peer("proxy", {"gateway.networking.k8s.io/gateway-name": "zsbir"}, "zsbir-gateway"),
    Peer("another", {"app": "zsbir-jobs", "ray.io/is-ray-node": "yes", "ray.io/node-type": "head"}, "another-team"),
    Peer("unlabelled", {}, "zsbir"),
]
"""Pods of other namespaces, one that has borrowed our labels, and one of our namespace that nobody knows."""

OUTSIDE = [
    Peer("somewhere", address="198.51.100.7"),
    Peer("somewhere-6", address="2001:db8::7"),
    Peer("metadata", address="169.254.169.254"),
    Peer("metadata-6", address="fd00:ec2::254"),
    Peer("metadata-6-google", address="fd20:ce::254"),
]
SOMEWHERE = ("somewhere", "somewhere-6")

WEB = {("jobs", 8270), ("search", 8280), ("mlflow", 5000)}
RAY = ["standing-head", "standing-worker", "attempt-head", "attempt-worker"]

ALWAYS = {
    *((asking, "mlflow", 5000) for asking in ("jobs", "dispatcher", "search", *RAY)),
    *(product(("jobs", "dispatcher", "mlflow", "search"), SOMEWHERE, (443, 5432))),
    *(product(RAY, SOMEWHERE, (443,))),
    *((asking, answering, port) for asking, answering, port in product(RAY, RAY, PORTS)),
    ("dispatcher", "standing-head", 8265),
    ("kuberay", "standing-head", 8265),
    ("kuberay", "attempt-head", 8265),
    # One policy for both pages: each listens on its own port alone.
    *(("prometheus", answering, port) for answering in ("jobs", "search") for port in (8270, 8280)),
}
WITH_KUEUE = {("dispatcher", place, 6443) for place in SOMEWHERE}
IN_PUBLIC = set(product(("envoy", "proxy"), ("jobs", "search", "mlflow"), (8270, 8280, 5000)))
WANTED = {"small": ALWAYS, "gpu": ALWAYS | WITH_KUEUE, "public": ALWAYS | WITH_KUEUE | IN_PUBLIC}


def peers(overlay):
    """Our pods by short names. The clusters of attempts are there in every overlay: their labels are the same as the example's."""
    found = []
    for pod in pods_of([*rendered(overlay), *read("examples/rayjob.yaml")]):
        kind, name, *node = pod.owner.split("/")
        short = {"RayCluster": "standing-", "RayJob": "attempt-"}.get(kind, name.removeprefix("zsbir-")) + "".join(node)
        found.append(Peer(short, pod.labels, "zsbir"))
    return found


def policies_of(overlay):
    return [each for each in rendered(overlay) if each["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_listed_pairs_are_connected_and_everything_else_is_not(overlay):
    policies, pods = policies_of(overlay), peers(overlay)
    assert {each.name for each in pods} == {"jobs", "dispatcher", "mlflow", "search", *RAY}
    connected = {
        (asking.name, answering.name, port)
        for asking, answering, port in product([*pods, *ELSEWHERE, *OUTSIDE], [*pods, ELSEWHERE[-1], *OUTSIDE], PORTS)
        if "zsbir" in (asking.namespace, answering.namespace) and allowed(policies, asking, answering, port)
    }
    assert connected == WANTED[overlay]


NAME_SERVICES = [
    Peer("kube-dns", {"k8s-app": "kube-dns"}, "kube-system"),
    Peer("the cache in pods, by Cilium's local redirect", {"k8s-app": "node-local-dns"}, "kube-system"),
    Peer("the cache on the nodes' network", address="169.254.20.10"),
]


@pytest.mark.parametrize("names", NAME_SERVICES, ids=lambda each: each.name)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_can_ask_for_names_and_nothing_else_of_the_name_service(overlay, names):
    policies = policies_of(overlay)
    for pod in [*peers(overlay), ELSEWHERE[-1]]:
        assert all(allowed(policies, pod, names, 53, protocol) for protocol in ("UDP", "TCP"))
        assert not allowed(policies, pod, names, 9153)
        assert not allowed(policies, pod, Peer("dns", names.labels, "another-team"), 53)
        assert not allowed(policies, pod, Peer("another link-local address", address="169.254.20.11"), 53)


# --- set-ups that need more, as the README says: each is closed by the overlay, and opened by its example for whom it is meant


SERVICES = {"jobs", "dispatcher", "mlflow", "search"}
SET_UPS = [
    ("database", Peer("PostgreSQL", {"app.kubernetes.io/name": "postgresql"}, "postgres"), 5432, "TCP", SERVICES),
    ("storage", Peer("MinIO", {"app": "minio"}, "minio"), 9000, "TCP", {*SERVICES, *RAY}),
    ("names", Peer("the cache on the Service's address", address="10.96.0.10"), 53, "UDP", {*SERVICES, *RAY}),
    ("names", Peer("the cache on an address of IPv6", address="fd00::10"), 53, "UDP", {*SERVICES, *RAY}),
    ("cilium", Peer("the API as an entity", address="10.0.0.1", entity="kube-apiserver"), 6443, "TCP", {"dispatcher"}),
    ("cilium", Peer("the cache as an entity", address="169.254.20.10", entity="host"), 53, "UDP", {*SERVICES, *RAY}),
]


@pytest.mark.parametrize(("example", "place", "port", "protocol", "meant"), SET_UPS, ids=lambda each: getattr(each, "name", None))
def test_what_a_set_up_needs_is_closed_until_its_example_is_added_and_then_open_for_whom_it_is_meant(
    example, place, port, protocol, meant
):
    policies, more = policies_of("gpu"), read(f"examples/network/{example}.yaml")
    pods = peers("gpu")
    assert not [pod for pod in pods if allowed(policies, pod, place, port, protocol)]
    assert {pod.name for pod in pods if allowed([*policies, *more], pod, place, port, protocol)} == meant
    assert not [pod for pod in pods if allowed([*policies, *more], pod, place, 22)]


def test_ciliums_own_gateway_reaches_the_pages_with_its_example():
    gateway = Peer("gateway", address="10.0.0.9", entity="ingress")
    policies, more = policies_of("public"), read("examples/network/cilium.yaml")
    pods = {pod.name: pod for pod in peers("public")}
    for name, port in WEB:
        assert not allowed(policies, gateway, pods[name], port)
        assert allowed([*policies, *more], gateway, pods[name], port)
    assert not [name for name in RAY if allowed([*policies, *more], gateway, pods[name], 8265)]


def test_the_readme_names_every_example_beside_the_step_that_it_is_for():
    text = (INFRA / "README.md").read_text("utf-8")
    step = text.split("\n3. ")[1].split("\n4. ")[0]
    assert "#where-more-must-be-allowed" in step
    section = text.split("### Where more must be allowed\n")[1].split("\n## ")[0]
    for file in (INFRA / "examples" / "network").glob("*.yaml"):
        assert f"(examples/network/{file.name})" in section


# --- the evaluator itself, on the examples of Kubernetes' documentation


A, B = Peer("a", {"app": "a"}, "one"), Peer("b", {"app": "b"}, "two")


def policy(spec, namespace="one"):
    return {"metadata": {"name": "p", "namespace": namespace}, "spec": spec}


def test_without_a_policy_everything_is_open_and_an_empty_one_closes_its_direction_alone():
    assert allowed([], A, B, 80)
    closed = policy({"podSelector": {}, "policyTypes": ["Egress"]})
    assert not allowed([closed], A, B, 80)
    assert allowed([closed], B, A, 80)
    assert allowed([policy({"podSelector": {}, "policyTypes": ["Egress"]}, "two")], A, B, 80)


def test_a_rule_without_peers_or_ports_is_for_all_of_them_and_policies_add_up():
    everyone = policy({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]})
    nobody = policy({"podSelector": {}, "policyTypes": ["Ingress"]})
    assert allowed([everyone, nobody], B, A, 80)
    web = policy({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": 80}]}]})
    assert allowed([web, nobody], B, A, 80)
    assert not allowed([web, nobody], B, A, 81)
    assert not allowed([web, nobody], B, A, 80, "UDP")


def test_selectors_in_one_peer_have_to_fit_together_and_those_in_two_need_not():
    two, b = {"matchLabels": {"kubernetes.io/metadata.name": "two"}}, {"matchLabels": {"app": "b"}}
    everything = {"podSelector": {}, "policyTypes": ["Ingress"]}
    both = policy({**everything, "ingress": [{"from": [{"namespaceSelector": two, "podSelector": b}]}]})
    either = policy({**everything, "ingress": [{"from": [{"namespaceSelector": two}, {"podSelector": b}]}]})
    c = Peer("c", {"app": "c"}, "two")
    assert [allowed([both], each, A, 80) for each in (B, c)] == [True, False]
    assert [allowed([either], each, A, 80) for each in (B, c)] == [True, True]
    own = Peer("own b", {"app": "b"}, "one")
    assert [allowed([each], own, A, 80) for each in (both, either)] == [False, True]


def test_a_block_of_addresses_is_outside_and_has_exceptions():
    block = {"cidr": "10.0.0.0/8", "except": ["10.9.0.0/16"]}
    rule = policy({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": block}]}]})
    for address, is_open in (("10.1.2.3", True), ("10.9.2.3", False), ("192.0.2.1", False)):
        assert allowed([rule], A, Peer("x", address=address), 443) == is_open
    assert not allowed([rule], A, B, 443)


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ({"key": "app", "operator": "In", "values": ["a"]}, True),
        ({"key": "app", "operator": "NotIn", "values": ["a"]}, False),
        ({"key": "app", "operator": "Exists"}, True),
        ({"key": "app", "operator": "DoesNotExist"}, False),
        ({"key": "no", "operator": "NotIn", "values": ["a"]}, True),
    ],
)
def test_expressions_select_as_kubernetes_says(expression, fits):
    closed = policy({"podSelector": {"matchExpressions": [expression]}, "policyTypes": ["Ingress"]})
    assert allowed([closed], B, A, 80) != fits
