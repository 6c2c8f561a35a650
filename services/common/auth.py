"""Who may ask a service, and from where."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether that address is this machine's alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
