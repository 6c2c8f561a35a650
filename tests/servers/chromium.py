"""A real browser without a window: Debian's Chromium, the machine's own or unpacked from Debian's packages, led by Playwright.

Nothing is installed. What this machine lacks (90 MB) is fetched once, into the cache of the project.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from servers.debian import Packages, Unavailable

__all__ = ["WINDOW", "Unavailable", "chromium"]

INSTALLED = ("/usr/bin/chromium", "/usr/bin/chromium-headless-shell")
PROGRAM = "usr/lib/chromium/chromium-headless-shell"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
WINDOW = {"width": 1280, "height": 800}
"""Of a page, in pixels."""
ARGUMENTS = [
    "--headless",
    "--no-sandbox",  # as root it does not start with one
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers have 64 MB there, and pages crash
    # Nothing that it does by itself shall leave this machine.
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FONTS = """\
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{root}/usr/share/fonts</dir><cachedir>{root}/fonts-cache</cachedir></fontconfig>
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a new user's folder; each context of it is a new user too. Unavailable where it cannot be had."""
    program, environment = _program()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS, env=environment)
        try:
            yield browser
        finally:
            browser.close()


def _program() -> tuple[str, dict[str, str]]:
    """The program and the environment it runs in."""
    installed = next((path for path in INSTALLED if Path(path).exists()), None)
    if installed:
        return installed, dict(os.environ)
    packages = ["chromium-headless-shell", "chromium-common"]
    root = Packages("Chromium", "chromium", packages, [PROGRAM], _environment).unpacked()
    return str(root / PROGRAM), _environment(root)


def _environment(root: Path) -> dict[str, str]:
    libraries = os.pathsep.join([str(root / LIBRARIES), str(root / LIBRARIES / "pulseaudio")])
    found = {**os.environ, "LD_LIBRARY_PATH": libraries}
    if not Path("/etc/fonts/fonts.conf").exists():  # then the fonts came with the packages, and nothing says where they are
        config = root / "fonts.conf"
        config.write_text(FONTS.format(root=root), encoding="utf-8")
        found["FONTCONFIG_FILE"] = str(config)
    return found
