"""The site: it builds with warnings as errors, loads nothing from elsewhere, and its links lead somewhere."""

import re
import runpy
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from deadlines import WAIT

import tune_prune

ROOT = Path(__file__).parent.parent
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""The attribute whose address a browser loads, by tag."""


class Page(HTMLParser):
    """The anchors of a page, its links, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors, self.links, self.loads = set[str](), set[str](), set[str]()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        if tag in LOADED and LOADED[tag] in found:
            self.loads.add(found[LOADED[tag]])


parse = cache(Page)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    built = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "build.py"), str(folder)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "site"


def test_every_document_is_a_page_of_the_navigation(site: Path) -> None:
    documents = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert {path.stem for path in (site / "docs").glob("*.html")} == documents - {"README"} | {"index"}
    listed = set(re.findall(r'"docs/([\w-]+)\.md"', (ROOT / "docs" / "zensical.toml").read_text(encoding="utf-8")))
    assert listed == documents - {"README"}
    experiments = set(re.findall(r'"(experiments/.*README\.md)"', (ROOT / "docs" / "zensical.toml").read_text()))
    assert experiments == {str(path.relative_to(ROOT)) for path in (ROOT / "experiments").glob("**/README.md")}


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    assert {(path.name, one) for path in pages for one in parse(path).loads if re.match(r"(\w+:)?//", one)} == set()
    styles = list(site.rglob("*.css"))
    assert styles
    assert [path.name for path in styles if re.search(r"url\([\"']?(https?:)?//|@import", path.read_text())] == []


@pytest.mark.parametrize("name", ["index.html", "docs/tutorial.html"])
def test_search_works_without_a_server(site: Path, browser: Any, name: str) -> None:
    opened, faults = browser.new_page(), list[str]()
    opened.set_default_timeout(1000 * WAIT)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("request", lambda request: faults.append(request.url) if not request.url.startswith("file:") else None)
    opened.goto((site / name).as_uri())
    opened.get_by_role("button", name="Search").first.click()
    opened.keyboard.type("hypervolume")
    opened.get_by_text(re.compile(r"^\d+ results$")).wait_for()
    assert faults == []
    opened.close()


def test_links_and_anchors_lead_somewhere(site: Path) -> None:
    dead, count = set(), 0
    for path in site.rglob("*.html"):
        for link in parse(path).links | parse(path).loads:
            if re.match(r"\w+:|//", link) or path.name == "404.html":
                continue
            count += 1
            name, _, anchor = link.partition("#")
            target = (path.parent / unquote(name)).resolve() if name else path
            if target.is_dir() and not anchor and any(target.iterdir()):
                continue  # a browser lists it
            if not target.is_file() or (anchor and unquote(anchor) not in parse(target).anchors):
                dead.add((path.relative_to(site).as_posix(), link))
    assert count > 1000
    assert dead == set()


def test_a_dead_link_ends_the_build(site: Path, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "build.py").write_bytes((ROOT / "docs" / "build.py").read_bytes())
    (tmp_path / "docs" / "zensical.toml").write_text('[project]\nsite_name = "a"\ndocs_dir = "pages"\n')
    (tmp_path / "README.md").write_text("# A\n\n[there](#a) and [not there](#b)\n")
    command = [sys.executable, "docs/build.py"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "anchor does not exist" in ended.stdout + ended.stderr


def test_every_name_of_the_package_is_described(site: Path) -> None:
    names = {f"tune_prune.{name}" for name in tune_prune.__all__ if not name.startswith("__")}
    page = site / "docs" / "python.html"
    assert names <= parse(page).anchors
    docstring = (tune_prune.search.__doc__ or "").split("\n")[0]
    assert docstring in re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))


def test_only_files_of_the_repository_are_copied() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "build.py"))["find_pages"]()
    assert {ROOT / "README.md", ROOT / "experiments" / "lenet5" / "pareto.png"} <= pages
    assert all(path.is_relative_to(ROOT) and ".." not in path.parts for path in pages)
