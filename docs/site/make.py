"""Builds the site of the documents into build/site; it can be read and searched from disk.

`make docs`, or `python docs/site/make.py` from the root of the repository. The documents keep
their places, so that their links work here and in the repository.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "build" / "site-source"
SETTINGS = ROOT / "docs" / "site" / "mkdocs.yml"
PACKAGES = ("flows", "tasks", "cac_core", "schemas")
_FOREIGN_SCRIPT = "https://unpkg.com/iframe-worker/shim"
DOCUMENTS = ("README.md", "MODEL_CARD.md", "CHANGELOG.md", "LICENSE")


def prepare() -> list[str]:
    """Copy the documents into the folder of the site, and write a page per package.

    Returns
    -------
    The pages of the packages, relative to that folder.
    """
    shutil.rmtree(SOURCE, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    documents = [ROOT / name for name in DOCUMENTS]
    for pattern in ("*.md", "pictures/*.png", "weights/*.csv"):
        documents += sorted((ROOT / "docs").glob(pattern))
    for path in documents:
        place = SOURCE / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    pages = []
    for package in PACKAGES:
        for init in sorted((ROOT / package).rglob("__init__.py")):
            name = ".".join(init.parent.relative_to(ROOT).parts)
            place = SOURCE / "api" / f"{name}.md"
            place.parent.mkdir(exist_ok=True)
            place.write_text(_package_page(name, init), encoding="utf-8")
            pages.append(f"api/{name}.md")
    return pages


def _package_page(name: str, init: Path) -> str:
    """A page with the documented members of every module of a package."""
    summary = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
    lines = [f"# {name}", "", summary, ""]
    for path in sorted(init.parent.glob("*.py")):
        if path.name != "__init__.py" and not path.name.startswith("_"):
            lines += [f"::: {name}.{path.stem}", ""]
    return "\n".join(lines)


def build() -> int:
    """Build the site; a broken link is an error."""
    pages = prepare()
    nav = "".join(f"\n      - {Path(page).stem}: {page}" for page in pages)
    settings = SETTINGS.read_text(encoding="utf-8").rstrip()
    config = SOURCE.parent / "mkdocs.yml"
    config.write_text(f"{settings}\n  - Library:{nav}\n", encoding="utf-8")
    shutil.rmtree(SOURCE.parent / "site", ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    code = subprocess.run([*command, "--config-file", config], check=False).returncode
    if code == 0:
        _load_nothing_from_elsewhere(SOURCE.parent / "site")
    return code


def _load_nothing_from_elsewhere(site: Path) -> None:
    """Replace the script that the theme loads from a server, for search from disk, by ours."""
    place = Path("assets", "javascripts", "worker.js")
    shutil.copyfile(Path(__file__).with_name("worker.js"), site / place)
    for page in site.rglob("*.html"):
        up = "../" * (len(page.relative_to(site).parts) - 1)
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(_FOREIGN_SCRIPT, f"{up}{place}"), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(build())
