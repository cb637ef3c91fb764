"""Links of all Markdown pages lead to files under version control, pictures among them, and to headings."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from conftest import ROOT

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`]*`", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def tracked():
    """The files that git lists, from the top of the repository; none where this is no checkout."""
    command = ["git", "ls-files", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [name for name in listed.split("\0") if name]


FILES = tracked()
PAGES = [name for name in FILES if name.endswith(".md")]


def broken_links(page, text, files):
    """The links of a page that lead to no file, and to no folder with files."""
    for target in LINK.findall(CODE.sub("", text)):
        path = target.partition("#")[0]
        if path and not re.match(r"[a-z]+:", path):
            found = os.path.normpath(os.path.join(os.path.dirname(page), path))
            if not any(file == found or file.startswith(f"{found}/") for file in files):
                yield target


def anchors(text):
    """What the headings of a page are called in links, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_anchors(page, text, read):
    """The links of a page to headings that are not there."""
    for target in LINK.findall(CODE.sub("", text)):
        path, _, anchor = target.partition("#")
        if anchor and not re.match(r"[a-z]+:", path):
            found = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
            if found.endswith(".md") and anchor not in anchors(text if found == page else read(found)):
                yield target


@pytest.mark.skipif(not FILES, reason="needs a checkout with git")
@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_under_version_control(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert list(broken_links(page, text, FILES)) == []
    assert list(broken_anchors(page, text, lambda found: (ROOT / found).read_text(encoding="utf-8"))) == []


def test_broken_links_are_found():
    text = (
        "[a](b.md#x) ![p](../q/p.png) [c](none.md) ![d](d.png) [e](https://x.org) `[f](f)` [g](../q) [h](#h)"
    )
    files = ["docs/b.md", "q/p.png"]
    assert list(broken_links("docs/a.md", text, files)) == ["none.md", "d.png"]


def test_broken_anchors_are_found():
    text = "# What's new?\n[a](#whats-new) [b](#old) [c](b.md#d) [e](b.md#f) [g](https://x.org#h)"
    assert list(broken_anchors("docs/a.md", text, {"docs/b.md": "## D\n```\n# f\n```"}.get)) == [
        "#old",
        "b.md#f",
    ]
