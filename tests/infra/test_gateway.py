"""The pages under names of their own, in the overlay `public`: by Gateway API, for whichever controller a cluster has."""

from __future__ import annotations

import copy

import pytest
from jsonschema.exceptions import ValidationError
from manifests.objects import INFRA, check, of_kind, rendered
from manifests.policies import matches

PAGES = {
    "zsbir-jobs": ("JOBS_HOSTS", "JOBS_PAGE"),
    "zsbir-search": ("SEARCH_HOSTS", "SEARCH_PAGE"),
    "zsbir-mlflow": ("MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_PAGE"),
}
"""The variables with the names under which each Service is known, and with its address for links."""


@pytest.fixture
def objects():
    return rendered("public")


@pytest.fixture
def gateway(objects):
    (found,) = of_kind(objects, "Gateway").values()
    return found


def listeners(gateway):
    return {each["name"]: each for each in gateway["spec"]["listeners"]}


def rules(route):
    (found,) = route["spec"]["rules"]
    return found


def test_no_object_is_for_a_controller_that_has_ended():
    """Ingress NGINX has had no releases and no mended weaknesses since March 2026."""
    for file in INFRA.rglob("*.yaml"):
        text = file.read_text("utf-8")
        assert "ingress-nginx" not in text, file
        assert "nginx.ingress" not in text, file
        assert "kind: Ingress\n" not in text, file


def test_every_route_is_at_a_listener_that_lets_its_namespace_in_and_has_its_name(objects, gateway):
    own = gateway["metadata"]
    assert own["namespace"] in of_kind(objects, "Namespace")
    routes = of_kind(objects, "HTTPRoute")
    taken = set()
    for route in routes.values():
        (parent,) = route["spec"]["parentRefs"]
        assert (parent["name"], parent["namespace"]) == (own["name"], own["namespace"])
        listener = listeners(gateway)[parent["sectionName"]]
        allowed = listener["allowedRoutes"]["namespaces"]
        assert allowed["from"] == "Selector"
        assert matches(allowed["selector"], {"kubernetes.io/metadata.name": route["metadata"]["namespace"]})
        assert not matches(allowed["selector"], {"kubernetes.io/metadata.name": "another-team"})
        assert listener.get("hostname") in (None, *route["spec"]["hostnames"])
        taken.add(parent["sectionName"])
    assert taken == set(listeners(gateway)), "a listener without a route answers 404"


def test_cert_manager_can_answer_challenges_on_port_80_from_the_gateways_namespace(gateway):
    http = listeners(gateway)["http"]
    assert (http["protocol"], http["port"]) == ("HTTP", 80)
    assert "hostname" not in http
    assert matches(
        http["allowedRoutes"]["namespaces"]["selector"], {"kubernetes.io/metadata.name": gateway["metadata"]["namespace"]}
    )


def test_pages_are_reached_by_tls_alone_and_browsers_are_told_so(objects, gateway):
    for route in of_kind(objects, "HTTPRoute").values():
        listener = listeners(gateway)[route["spec"]["parentRefs"][0]["sectionName"]]
        rule = rules(route)
        if listener["protocol"] == "HTTP":
            assert rule["filters"] == [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}]
            assert set(route["spec"]["hostnames"]) == {
                each["hostname"] for each in listeners(gateway).values() if "hostname" in each
            }
        else:
            assert listener["tls"] == {"mode": "Terminate", "certificateRefs": [{"name": "zsbir-tls"}]}
            (header,) = rule["filters"][0]["responseHeaderModifier"]["set"]
            assert header == {"name": "Strict-Transport-Security", "value": "max-age=31536000"}


def test_no_answer_is_cut_off_after_the_15_seconds_that_envoy_waits(objects):
    routes = of_kind(objects, "HTTPRoute")
    waits = {name: rules(routes[name])["timeouts"]["request"] for name in PAGES}
    assert waits == {"zsbir-jobs": "10m", "zsbir-search": "10m", "zsbir-mlflow": "0s"}


def test_the_names_under_which_pages_are_known_are_the_routes_and_the_services_own(objects):
    (settings,) = [each["data"] for name, each in of_kind(objects, "ConfigMap").items() if name.startswith("zsbir-settings")]
    routes = of_kind(objects, "HTTPRoute")
    for service, (hosts, page) in PAGES.items():
        (backend,), (host,) = rules(routes[service])["backendRefs"], routes[service]["spec"]["hostnames"]
        assert backend["name"] == service
        assert {host, service} <= set(settings[hosts].split(","))
        assert settings[page] == f"https://{host}"
    assert settings["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] == settings["MLFLOW_PAGE"]


def test_the_check_notices_what_gateway_api_refuses(objects, gateway):
    route = of_kind(objects, "HTTPRoute")["zsbir-jobs"]
    for each, change in (
        (gateway, lambda it: it["spec"]["listeners"][1].pop("tls")),
        (gateway, lambda it: it["spec"].update(ingressClassName="nginx")),
        (route, lambda it: it["spec"]["rules"][0]["timeouts"].update(request="10 minutes")),
        (route, lambda it: it["spec"]["rules"][0].update(backendRefs=[{"name": "x", "port": "http"}])),
    ):
        check(each)
        changed = copy.deepcopy(each)
        change(changed)
        with pytest.raises(ValidationError):
            check(changed)


def test_the_readme_says_what_each_controller_needs(gateway):
    text = (INFRA / "README.md").read_text("utf-8")
    section = text.split("## Under names of its own\n")[1].split("\n## ")[0]
    assert f"`{gateway['spec']['gatewayClassName']}`" in section
    assert "March 2026" in section
