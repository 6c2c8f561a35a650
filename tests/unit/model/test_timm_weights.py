"""Weights from Hugging Face, where it does not answer, cannot answer now, or has no such weights: real servers on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants
from servers.processes import HOST, free_ports

from zsbir.base.errors import InputError, Unreachable
from zsbir.model.weights import load_weights

MODEL = "timm:convnext_atto.d2_in1k"


@contextmanager
def answering(status: int) -> Iterator[tuple[str, list[str]]]:
    """A server that answers every request for a file with that status: its address, and the paths that it was asked for."""
    paths: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            paths.append(self.path)
            self.send_response(200 if self.path == "/" and status < 500 else status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}", paths
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def asked(tmp_path, monkeypatch, capfd):
    """A function that asks an address for weights, and returns the error, and what was printed."""

    def asked(endpoint: str) -> tuple[Exception, str]:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
        with pytest.raises((InputError, Unreachable)) as error:
            load_weights("imagenet", backbone=MODEL, root=tmp_path / "root")
        return error.value, capfd.readouterr().err

    return asked


def test_a_host_that_does_not_answer_is_unreachable(asked):
    (port,) = free_ports(1)
    error, printed = asked(f"http://{HOST}:{port}")
    assert isinstance(error, Unreachable)
    assert "try again later" in str(error)
    assert "--weights FILE" in str(error)
    assert not printed


def test_a_host_that_cannot_answer_now_is_unreachable_and_asked_once(asked):
    """huggingface_hub alone asks for four names, six times each, and waits a minute and a half in between."""
    with answering(503) as (endpoint, paths):
        error, printed = asked(endpoint)
    assert isinstance(error, Unreachable)
    assert paths in (["/"], [""])
    assert not printed


def test_weights_that_a_host_does_not_have_are_the_users_to_mend(asked):
    with answering(404) as (endpoint, paths):
        error, printed = asked(endpoint)
    assert isinstance(error, InputError)
    assert any("convnext_atto" in path for path in paths)
    assert "try again later" not in str(error)
    assert "\n" not in str(error)
    assert not printed
