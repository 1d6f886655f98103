"""Opens pages in a headless Chromium, several at a time, and says what came of them."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_NONCE = "report"
_LOOK = """
const violations = [];
document.addEventListener("securitypolicyviolation", event => violations.push(event.violatedDirective));
addEventListener("load", () => {
  const root = document.documentElement;
  const inBox = element => element.parentElement.closest(".scroll");
  const beyond = [...document.body.querySelectorAll("*")]
    .filter(element => element.getBoundingClientRect().right > root.clientWidth + 0.5 && !inBox(element));
  parent.postMessage(JSON.stringify({
    name: NAME,
    width: innerWidth,
    content_width: root.scrollWidth,
    images: [...document.images].map(image => image.naturalWidth),
    requests: performance.getEntriesByType("resource").map(entry => entry.name).filter(name => !/^data:/.test(name)),
    beyond: beyond.map(element => element.outerHTML.slice(0, 80)),
    elements: [...document.body.querySelectorAll("*")].map(element => element.localName),
    text: document.body.innerText,
    violations,
  }), "*");
});
"""


@dataclass(frozen=True)
class Seen:
    """A page as the browser shows it."""

    width: int
    """Of the window, in CSS pixels; content_width is that of what is in it."""
    content_width: int
    images: list[int]
    """Width of each picture in pixels, 0 for one that has not loaded."""
    requests: list[str]
    """Addresses of everything that was asked for, but for what the page holds itself."""
    beyond: list[str]
    """Elements that reach beyond the window's right edge, but for those in a box that scrolls."""
    elements: list[str]
    """Names of all elements in the page's body."""
    text: str
    violations: list[str]
    """What the page's own policy forbade."""


def visit(pages: dict[str, tuple[Path, int]], folder: Path) -> dict[str, Seen]:
    """Opens each page in a frame as wide as asked for, by one start of the browser. Skips without a browser.

    The pages' policies are loosened for one script, which looks around in them; what they forbid else stays forbidden.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)} is on PATH")
    frames = ""
    for number, (name, (path, width)) in enumerate(pages.items()):
        text, policies = re.subn(
            "default-src 'none';", rf"\g<0> script-src 'nonce-{_NONCE}';", path.read_text(), count=1
        )
        assert policies == 1, f"{path} has no policy"
        script = f'<script nonce="{_NONCE}">{_LOOK.replace("NAME", json.dumps(name))}</script>'
        (folder / f"{number}.html").write_text(text.replace("<style>", f"{script}<style>", 1))
        frames += f'<iframe src="{number}.html" width="{width}" height="800" style="border: 0"></iframe>'
    collect = "addEventListener('message', event => { found.textContent += event.data + '\\n'; });"
    start = folder / "start.html"
    start.write_text(f'<!doctype html><pre id="found"></pre><script>{collect}</script>{frames}')
    command = (
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}"),
        *("--virtual-time-budget=20000", "--dump-dom", start.as_uri()),
    )
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    match = re.search(r'<pre id="found">(.*?)</pre>', dumped, re.DOTALL)
    assert match is not None, dumped[:1000]
    found: list[dict[str, Any]] = [json.loads(line) for line in html.unescape(match[1]).strip().split("\n")]
    assert {one["name"] for one in found} == set(pages), "not every page has loaded"
    return {one.pop("name"): Seen(**one) for one in found}
