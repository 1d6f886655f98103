"""The tables within the pages of docs/: each is written between two marks by the command that makes it."""

from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, PERFORMANCE = DOCS / "results.md", DOCS / "performance.md"


def put_table(name: str, table: str, page: Path = PAGE) -> None:
    """Puts a table in the place of the one between `<!-- name: begin -->` and `<!-- name: end -->`."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.read_text().partition(begin)
    assert found, f"{page.name} has no {begin}"
    page.write_text(f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}")
