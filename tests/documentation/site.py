"""Build the documentation as a site: every page of the repository, with the links that they have on GitHub.

Pages lie in several folders (the root, docs, infra, docker), and link to each other and to files that are no pages. A site
generator reads one folder. So the pages, and the files that they link to, are copied with their paths, and mkdocs.yml builds
that copy.

`python -m documentation.site` builds mkdocs.yml; `make site` does so.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "mkdocs.yml"
PAGES = ROOT / "build" / "pages"
FOLDERS = ("docs", "infra", "docker")
"""Folders of pages, beside the root itself."""

STYLE = Path(__file__).with_name("extra.css")


def pages() -> list[Path]:
    """Return the Markdown files of the repository that are pages of the site."""
    return sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])


def without_code(text: str) -> str:
    """Return Markdown without its code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def targets(page: Path) -> Iterator[Path]:
    """Yield what a page links to or shows, of this repository."""
    text = without_code(page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
        if "://" not in target and not target.startswith("#"):
            yield (page.parent / unquote(target.split("#")[0])).resolve()


def copy_pages(to: Path) -> None:
    """Copy all pages, and the files that they link to, into an empty folder. A linked folder without a page gets a list."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    shutil.copy(STYLE, to)
    for page in pages():
        _copy(page, to)
        for target in targets(page):
            if target.is_dir():
                _copy_folder(target, to)
            elif target.is_file() and target.is_relative_to(ROOT):
                _copy(target, to)


def _copy(file: Path, to: Path) -> None:
    place = to / file.relative_to(ROOT)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, place)


def _copy_folder(folder: Path, to: Path) -> None:
    if (folder / "README.md").exists() or not folder.is_relative_to(ROOT):
        return
    files = sorted(file for file in folder.iterdir() if file.is_file())
    for file in files:
        _copy(file, to)
    lines = [f"# {folder.relative_to(ROOT).as_posix()}", "", *(f"- [{file.name}]({file.name})" for file in files), ""]
    (to / folder.relative_to(ROOT) / "README.md").write_text("\n".join(lines), "utf-8")


def build(config: Path) -> None:
    """Build the site that a configuration describes. Links that lead nowhere end it. Raises CalledProcessError."""
    subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", config], cwd=ROOT, check=True
    )


if __name__ == "__main__":
    copy_pages(PAGES)
    build(CONFIG)
    print(f"open {ROOT / 'site' / 'index.html'}, or serve the folder: python -m http.server --directory site")
