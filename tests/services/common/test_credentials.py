"""Passwords in addresses, in every place where drivers take them from."""

from __future__ import annotations

import pytest

from services.common.credentials import Login, has_secret, hide_secrets, refuse_secrets, split_login
from zsbir.base.errors import InputError


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://ann:hush@db/z", "postgresql://ann:***@db/z"),
        ("postgresql+psycopg://ann:h%40sh@[::1]:5432/z", "postgresql+psycopg://ann:***@[::1]:5432/z"),
        ("postgresql://ann:hu/sh?x@db/z", "postgresql://ann:***@db/z"),
        ("postgresql://ann:12/3@db:5432/z", "postgresql://ann:***@db:5432/z"),
        ("postgresql://ann:hu@sh@db/z", "postgresql://ann:***@db/z"),
        ("postgresql:///z?user=ann&password=hush", "postgresql:///z?user=ann&password=***"),
        ("postgresql:///z?pass%77ord=hush", "postgresql:///z?pass%77ord=***"),
        ("mysql://root:hush@h/z?ssl_key_PASSWORD=hush;x=1", "mysql://root:***@h/z?ssl_key_PASSWORD=***;x=1"),
        ("https://hush@h/x", "https://***@h/x"),
        ("https://ann:hush@h:1/x?token=hush", "https://***@h:1/x?token=***"),
    ],
)
def test_a_password_is_found_and_hidden_wherever_it_stands(address, shown):
    assert hide_secrets(address) == shown
    assert has_secret(address)
    assert not has_secret(shown.replace("https://***@", "https://"))


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://ann@db:5432/z",
        "postgresql://host:5432/z?user=a@b",
        "sqlite:////home/ann@work/jobs.db",
        "http://h:5000/a@b",
        "s3://bucket/a@b",
        "/plain/path@x",
        "",
    ],
)
def test_an_address_without_a_password_stays_as_it_is(address):
    assert hide_secrets(address) == address
    assert split_login(address) == Login(address, "", "")


def test_name_and_password_are_taken_out_of_a_web_address_alone():
    assert split_login("https://ann%40x:h%2Fsh@h:1/x") == Login("https://h:1/x", "ann@x", "h/sh")
    assert split_login("postgresql://ann:hush@db/z").address == "postgresql://ann:hush@db/z"


@pytest.mark.parametrize("words", [["--store=postgresql://ann:hush@db/z"], ["--store", "postgresql://ann:hush@db/z"]])
def test_a_password_on_a_command_line_is_refused_without_repeating_it(words):
    with pytest.raises(InputError, match="every user of this machine could read there; use a file") as refused:
        refuse_secrets(words, "use a file")
    assert "hush" not in str(refused.value)
    refuse_secrets(["--root", "s3://bucket/x", "--store=sqlite:////tmp/a:b@c"], "")
