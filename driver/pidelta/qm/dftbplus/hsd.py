"""HSD, the human-friendly structured data of DFTB+ inputs: read into a tree, and written.

The format is described in the DFTB+ manual, "Input for DFTB+". Names of keys do not depend on case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from pidelta.errors import ConfigError

_INCLUDE = re.compile(r'<<[<+]\s*"?([^"\s]+)"?')
_TOKEN = re.compile(r'"[^"]*"|\'[^\']*\'|\#[^\n]*|[{}=;\n]|[^{}=;\n"\'#]+')
_NAME = re.compile(r"([\w-]+)\s*(?:\[([^\]]*)\])?$")


@dataclass
class Node:
    """What stands behind a key.

    Attributes:
        name: the key as written.
        unit: what stands in brackets behind it.
        value: what stands between the equals sign and a brace or the end of the line.
        text: the lines between braces that are no keys.
        children: the keys between braces, in lower case.
    """

    name: str
    unit: str = ""
    value: str = ""
    text: str = ""
    children: dict[str, Node] = field(default_factory=dict)

    def find(self, path: str) -> Node | None:
        """Return the node at a dotted path of keys, or None."""
        node: Node | None = self
        for key in path.lower().split("."):
            node = None if node is None else node.children.get(key)
        return node

    def format(self, indent: str = "") -> str:
        """Return it as HSD."""
        key = f"{indent}{self.name} [{self.unit}]" if self.unit else f"{indent}{self.name}"
        key = f"{key} = {self.value}" if self.value else key
        if self.value and not self.children and not self.text:
            return key
        inside = [self.text, *(child.format(indent + "  ") for child in self.children.values())]
        return "\n".join([f"{key} {{", *filter(None, inside), f"{indent}}}"])


def read_hsd(path: Path) -> Node:
    """Read a file, with those it includes.

    Raises:
        ConfigError: a file cannot be read or includes itself, a brace is missing or a key is not a word.
    """
    return parse_hsd(_with_includes(path), str(path))


def parse_hsd(text: str, where: str) -> Node:
    """Read HSD; `where` is the file, for messages.

    Raises:
        ConfigError: a brace is missing or a key is not a word.
    """
    tokens = _Tokens(text, where)
    root = Node("")
    tokens.fill(root)
    if tokens.rest:
        raise ConfigError(f"{where}: line {tokens.line}: expected no closing brace without an opening one")
    return root


def _with_includes(path: Path, including: tuple[Path, ...] = ()) -> str:
    if path.resolve() in including:
        raise ConfigError(f"{path}: expected a file that does not include itself, found one that does")
    including = (*including, path.resolve())
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    if "\0" in text:
        raise ConfigError(f"{path}: expected text, found a binary file")
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return _INCLUDE.sub(lambda match: _with_includes(path.parent / match[1], including), "\n".join(lines))


class _Tokens:
    """The tokens of a text that are still to be read."""

    def __init__(self, text: str, where: str) -> None:
        self.rest: list[str] = [token for token in _TOKEN.findall(text) if not token.startswith("#")][::-1]
        self.line = 1
        self._where = where

    def fill(self, node: Node) -> None:
        """Read the inside of a block up to the brace that closes it, or to the end of the root's text."""
        words, lines = "", []
        while self.rest:
            token = self.rest.pop()
            if token == "}":
                if not node.name:
                    self.rest.append(token)
                break
            if token == "=":
                self._add(node, words, self._until_end())
                words = ""
            elif token == "{":
                self._add(node, words, "{")
                words = ""
            elif token in "\n;":
                self.line += token == "\n"
                lines.append(words.strip())
                words = ""
            else:
                words += token
        else:
            if node.name:
                raise ConfigError(f"{self._where}: expected a brace that closes {node.name}, found none")
        node.text = "\n".join(line for line in [*lines, words.strip()] if line)

    def _until_end(self) -> str:
        """Return what follows an equals sign: a value, or a method and an opening brace."""
        value = ""
        while self.rest and self.rest[-1] not in "\n;}":
            value += self.rest.pop()
            if value.endswith("{"):
                return value.strip()
        return value.strip()

    def _add(self, node: Node, key: str, value: str) -> None:
        match = _NAME.match(key.strip())
        if match is None:
            raise ConfigError(f"{self._where}: line {self.line}: expected a key, found {key.strip()!r}")
        child = Node(match[1], (match[2] or "").strip(), value.removesuffix("{").strip())
        if value.endswith("{"):
            self.fill(child)
        node.children[child.name.lower()] = child
