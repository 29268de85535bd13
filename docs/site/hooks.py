"""What mkdocs calls: pages that are made, and links of the repository's Markdown files as they are within the site."""

from __future__ import annotations

import posixpath
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pages import OUTSIDE, ROOT, pages

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_) -> str:
    """Links go from page to page; those to sources, which are no part of the site, become text, and those
    that lead nowhere are left to be found."""
    here = page.file.src_uri
    folder = "" if here in OUTSIDE.values() else "docs"

    def link(found: re.Match) -> str:
        picture, text, target, anchor = found.groups(default="")
        path = posixpath.normpath(posixpath.join(folder, posixpath.dirname(here), target))
        path = OUTSIDE.get(path, path.removeprefix("docs/"))
        file = files.get_file_from_path(f"{path}/index.md") or files.get_file_from_path(path)
        if file is None:
            return text if (ROOT / path).exists() else found[0]
        if text.endswith(".md") or text == target:  # on the site pages have titles
            text = re.search(r"^# (.+)", file.content_string, re.M)[1].strip("`")
        return f"{picture}[{text}]({posixpath.relpath(file.src_uri, posixpath.dirname(here) or '.')}{anchor})"

    return _LINK.sub(link, markdown)
