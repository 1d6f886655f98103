"""The page: one HTML file that holds everything, without scripts; all that comes from runs is escaped."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --line: #8886; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 1060px; margin: 0 auto; padding: 0 16px 48px; overflow-wrap: anywhere; }
h1 { font-size: 1.7em; } h2 { border-top: 2px solid var(--line); padding-top: 1em; margin-top: 2em; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 16px; }
figure { margin: 0 0 16px; max-width: 640px; break-inside: avoid; }
figure img { display: block; width: 100%; height: auto; box-sizing: border-box; background: #fff; padding: 8px;
  border: 1px solid var(--line); border-radius: 8px; }
figcaption, .note { font-size: .85em; opacity: .85; margin-top: .4em; }
.scroll { overflow: auto; max-width: 100%; max-height: 85vh; }
table { border-collapse: collapse; font-size: .85em; overflow-wrap: normal; }
th, td { padding: .25em .6em; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top;
  white-space: nowrap; font-variant-numeric: tabular-nums; }
th { background: color-mix(in srgb, CanvasText 10%, Canvas); position: sticky; top: 0; }
td:last-child { white-space: normal; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 11em; }
.last_words td:last-child, .last_words th:last-child { text-align: left; min-width: 18em; }
.words th, .words td { text-align: left; white-space: pre-wrap; min-width: 5em; }
pre { white-space: pre-wrap; font-size: .85em; }
summary { cursor: pointer; margin: 1em 0 .5em; }
@media print {
  body { font-size: 11px; } main { max-width: none; padding: 0; } .scroll { overflow: visible; max-height: none; }
  .pictures { grid-template-columns: 1fr 1fr; }
  th, td { white-space: normal; padding: .15em .4em; } tr { break-inside: avoid; }
}
"""


class Html(str):
    """Text that is HTML already; everything else is escaped."""


def page(title: str, body: Iterable[Html]) -> str:
    """The whole document."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
{"\n".join(body)}
</main>
</body>
</html>
"""


def element(tag: str, text: str, **attributes: str) -> Html:
    """An element with its text, or HTML, in it."""
    given = "".join(f' {name.rstrip("_")}="{escape(value)}"' for name, value in attributes.items())
    return Html(f"<{tag}{given}>{text if isinstance(text, Html) else escape(text)}</{tag}>")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], class_: str = "numbers") -> Html:
    """A table; one wider than the page scrolls within its box. The class `words` keeps line breaks."""
    lines = [Html("".join(element("th", column) for column in columns))]
    lines += [Html("".join(element("td", cell) for cell in row)) for row in rows]
    body = Html("\n".join(element("tr", line) for line in lines))
    return element("div", element("table", body, class_=class_), class_="scroll", tabindex="0")


def picture(figure: Figure | None, path: Path, alt: str, caption: str) -> Html:
    """Writes the picture into a file, and returns it embedded, with its caption; nothing for None."""
    if figure is None:
        return Html()
    figure.savefig(path)
    width, height = (round(inches * figure.dpi) for inches in figure.get_size_inches())
    data = base64.b64encode(path.read_bytes()).decode()
    size = f'width="{width}" height="{height}"'
    image = f'<img src="data:image/png;base64,{data}" {size} alt="{escape(alt)}">'
    return element("figure", Html(image + element("figcaption", caption)))
