"""The tables within docs/results.md: each is written between two marks by the command that makes it."""

from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs/results.md"


def put_table(name: str, table: str) -> None:
    """Puts a table in the place of the one between `<!-- name: begin -->` and `<!-- name: end -->`."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = PAGE.read_text().partition(begin)
    PAGE.write_text(f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}")
