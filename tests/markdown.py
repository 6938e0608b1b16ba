"""What stands in the Markdown files: fenced blocks, and the commands in them with what they print."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

__all__ = ["ROOT", "Block", "Command", "blocks", "commands", "documents"]

ROOT = Path(__file__).parent.parent


class Block(msgspec.Struct, frozen=True):
    """A fenced block: ```` ```python path/of/the/file.py ````."""

    language: str
    title: str
    text: str


class Command(msgspec.Struct, frozen=True):
    """A line after ``$`` and the lines that it prints, as the document has them."""

    line: str
    output: str


def documents() -> list[Path]:
    """Every Markdown file of the project."""
    patterns = ("*.md", "docs/*.md", "models/*.md", "plugins/*/*.md", "examples/**/*.md", "benchmarks/**/*.md")
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a file, with the indentation of a list taken off."""
    pattern = re.compile(r"^( *)```(\S*) ?([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    return [
        Block(language, title, re.sub(f"^{indent}", "", text, flags=re.MULTILINE))
        for indent, language, title, text in pattern.findall(path.read_text("utf-8"))
    ]


def commands(path: Path) -> list[Command]:
    """The commands of a file's ``console`` blocks."""
    found = []
    for block in blocks(path):
        if block.language == "console":
            for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                line, _, output = part.partition("\n")
                found.append(Command(line, output.strip()))
    return found
