"""The tables within the pages of docs/: each is written between two marks by the command that makes it."""

from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, PERFORMANCE = DOCS / "results.md", DOCS / "performance.md"
RECIPE, RUNS = DOCS / "recipe.md", DOCS / "runs.md"


def put_table(name: str, table: str, page: Path = PAGE) -> None:
    """Puts a table in the place of the one between `<!-- name: begin -->` and `<!-- name: end -->`."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.read_text().partition(begin)
    assert found, f"{page.name} has no {begin}"
    page.write_text(f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}")


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table of markdown, with columns of even width so that it can be read in a terminal too."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
