"""The fenced blocks of README.md and docs/, and what the comment above each says of how it is checked.

`<!-- test: MODULE::FUNCTION -->`: that test runs it, and gets it from the fixture `blocks`. `<!-- recipe -->`:
test_tasks_document.py runs it. `<!-- part of FILE -->`: its lines stand in that file, which another test runs.
`<!-- not run: REASON -->`. TOML without a comment is read as a part of a space. A comment `<!-- all blocks: ... -->`
at the top of a document says the same of all blocks that have none of their own.
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PATTERN = re.compile(r"(?:^<!-- ([^\n]+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A block: the document from the repository's root, the line of the fence, and what stands in it."""

    document: str
    line: int
    language: str
    text: str
    note: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each line, without its comment."""
        return [words for line in self.text.splitlines() if (words := re.sub(r"\s#.*", "", line).split())]


def read(document: str) -> list[Block]:
    """Reads the blocks of a document."""
    text = (ROOT / document).read_text(encoding="utf-8")
    stated = re.search(r"^<!-- all blocks: (.+) -->$", text, re.MULTILINE)
    return [
        Block(document, text[: found.end()].count("\n") - found[3].count("\n"), found[2], found[3],
              found[1] or (stated[1] if stated else ""))
        for found in PATTERN.finditer(text)
    ]  # fmt: skip


DOCUMENTS = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
BLOCKS = [block for document in DOCUMENTS for block in read(document)]


def of_test(test: str) -> list[Block]:
    """Lists the blocks that a test runs, by `MODULE::FUNCTION`."""
    return [block for block in BLOCKS if block.note == f"test: {test}"]
