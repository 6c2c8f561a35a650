"""What Kubernetes' network policies let through: a small evaluator of networking.k8s.io/v1, after its documentation.

A pod that no policy selects for a direction is open in it. One that some select is closed but for what any of them allows. A
connection needs both ends: the policies on the pod that asks, and those on the pod that answers. An address outside the cluster
has no policies. `ipBlock` is for addresses outside: whether it covers pods differs between networks, so pods have no address here.

Cilium knows some addresses (of nodes, of Kubernetes' API, of its own gateway) as entities, and no `ipBlock` covers them there. Its
CiliumNetworkPolicies are read as far as they name entities, and add up with the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod, with labels and a namespace with labels of its own; or an address outside the cluster.

    entity: what Cilium takes the address for, on a network of Cilium.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""
    address: str = ""
    entity: str = ""

    @property
    def namespace_labels(self) -> dict[str, str]:
        """Kubernetes labels each namespace with its name."""
        return {"kubernetes.io/metadata.name": self.namespace}


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects. An empty one selects everything."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for each in selector.get("matchExpressions", []):
        value, among = labels.get(each["key"]), each.get("values", [])
        true = {
            "In": value in among,
            "NotIn": value not in among,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[each["operator"]]
        if not true:
            return False
    return True


def allowed(policies: Sequence[Object], asking: Peer, answering: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection from one to the other comes about."""
    return _open(policies, "Egress", asking, answering, port, protocol) and _open(
        policies, "Ingress", answering, asking, port, protocol
    )


def _open(policies: Sequence[Object], direction: str, own: Peer, other: Peer, port: int, protocol: str) -> bool:
    if own.address:
        return True
    specs = [_spec(each) for each in policies if each["metadata"]["namespace"] == own.namespace]
    selecting = [spec for spec in specs if direction in spec["policyTypes"] and matches(spec["podSelector"], own.labels)]
    rules = [rule for spec in selecting for rule in spec.get(direction.lower(), [])]
    side = "to" if direction == "Egress" else "from"
    return not selecting or any(_rule(rule, side, own, other, port, protocol) for rule in rules)


def _spec(policy: Object) -> dict[str, Any]:
    """Return the spec of a policy, that of Cilium in the words of the others."""
    spec = policy["spec"]
    if policy.get("kind") != "CiliumNetworkPolicy":
        return dict(spec)
    found: dict[str, Any] = {"podSelector": spec["endpointSelector"], "policyTypes": []}
    for direction, side in (("Ingress", "from"), ("Egress", "to")):
        rules = spec.get(direction.lower())
        if rules is None:
            continue
        found["policyTypes"].append(direction)
        found[direction.lower()] = [
            {
                side: [{"entity": entity} for entity in rule[f"{side}Entities"]],
                "ports": [{**port, "port": int(port["port"])} for part in rule["toPorts"] for port in part["ports"]],
            }
            for rule in rules
        ]
    return found


def _rule(rule: Object, side: str, own: Peer, other: Peer, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    fits = ports is None or any(each.get("protocol", "TCP") == protocol and each.get("port", port) == port for each in ports)
    return fits and (side not in rule or any(_peer(each, own, other) for each in rule[side]))


def _peer(peer: Object, own: Peer, other: Peer) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        inside = bool(other.address) and not other.entity and ip_address(other.address) in ip_network(block["cidr"])
        return inside and not any(ip_address(other.address) in ip_network(each) for each in block.get("except", []))
    if "entity" in peer or other.address:
        return bool(other.entity) and peer.get("entity") == other.entity
    if "namespaceSelector" in peer:
        is_meant = matches(peer["namespaceSelector"], other.namespace_labels)
    else:
        is_meant = other.namespace == own.namespace
    return is_meant and matches(peer.get("podSelector", {}), other.labels)
