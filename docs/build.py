"""Builds the documentation as a site, without a network: `python docs/build.py` writes it to build/site.

README.md and docs/ are copied to build/pages, each file under its own path, with everything that they link to and that
those documents link to in turn. So a link means the same in the repository and in the site. `zensical.toml` has the
navigation. A link or an anchor that leads nowhere ends the build with exit code 1. Another folder than build may be
given.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
KINDS = ("*.md", "*.css", "*.js")
LINK = re.compile(r"\]\(([^)#\s]+)")


def find_linked(path: Path) -> set[Path]:
    """Finds the files of the repository that a document links to, of a folder all."""
    text = path.read_text(encoding="utf-8")
    targets = {(path.parent / link).resolve() for link in LINK.findall(text) if "://" not in link}
    files = {file for target in targets for file in (target.rglob("*") if target.is_dir() else [target])}
    return {file for file in files if file.is_file() and file.is_relative_to(ROOT)}


def find_pages() -> set[Path]:
    """Finds all documents of the site, and the pictures and files that they link to."""
    found, new = set[Path](), {ROOT / "README.md", *(file for kind in KINDS for file in (ROOT / "docs").glob(kind))}
    while new:
        found |= new
        new = {target for path in new if path.suffix == ".md" for target in find_linked(path)} - found
    return found


def main(folder: Path) -> int:
    """Copies the pages and builds the site from them; returns the exit code of the build."""
    shutil.rmtree(folder / "pages", ignore_errors=True)
    for path in sorted(find_pages()):
        copy = folder / "pages" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    shutil.copy(ROOT / "docs" / "zensical.toml", folder)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}  # where the docstrings are
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build"))
