"""Writes docs/configuration.md from the schemas in scout/: `make docs`."""

import json
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scout.config import Experiment
from scout.evaluation_config import EvaluationConfig
from scout.submit_config import ExportConfig, SubmitConfig
from scout.validation import groups_of

TECHNICAL = (2**62, 1e30)  # bounds that nobody meets on purpose (scout/group.py)
PAGE = Path(__file__).resolve().parent / "configuration.md"


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page as Markdown: a table for the run level, and one for each group."""
    lines = [
        "# Configuration",
        "",
        "Made from the schemas in `scout/` by `make docs`. Keys are set as `group.key=value`, a group's option as",
        "`group=option`. The defaults are those of the files of the same names in `conf/`; other options of a group",
        "bring their own.",
        "",
        "## `python train.py`",
        *_tables(Experiment),
        "",
        "## `python evaluate.py`",
        *_table(EvaluationConfig),
        "",
        "## `python -m scout.submit`",
        *_table(SubmitConfig),
        "",
        "## `python -m scout.export`",
        *_table(ExportConfig),
    ]
    return "\n".join(lines) + "\n"


def _tables(schema: type[BaseModel], prefix: str = "", first: type[BaseModel] = BaseModel) -> list[str]:
    """The table of a group and those within it; where it extends the first of several, of what it changes alone."""
    extends = first is not BaseModel and issubclass(schema, first) and schema is not first
    lines = _table(schema, prefix, first if extends else None)
    for name, field in schema.model_fields.items():
        groups = groups_of(field.annotation)
        for group in groups:
            option = f"={group.model_fields['name'].default}" if len(groups) > 1 else ""
            lines += ["", f"### {prefix}{name}{option}"]
            if issubclass(group, groups[0]) and group is not groups[0]:
                lines += ["", f"As {name}={groups[0].model_fields['name'].default}, but:"]
            lines += _tables(group, f"{prefix}{name}.", groups[0])
    return lines


def _table(schema: type[BaseModel], prefix: str = "", base: type[BaseModel] | None = None) -> list[str]:
    lines = ["", "| key | default | valid | meaning |", "| --- | --- | --- | --- |"]
    for name, field in schema.model_fields.items():
        if groups_of(field.annotation) or (base is not None and field.default == base.model_fields[name].default):
            continue
        default = _plain(field.default)
        meaning = " ".join((field.description or "").split())
        lines.append(f"| `{prefix}{name}` | `{default}` | {_valid(field)} | {meaning} |")
    return lines


def _plain(value: Any) -> str:
    """As one would write it in YAML."""
    return value if isinstance(value, str) else json.dumps(value)


def _valid(field: FieldInfo) -> str:
    """Choices and bounds of a key, as far as its type tells them."""
    choices = [str(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]
    if choices:
        return ", ".join(choices)
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [field.metadata, *(getattr(part, "__metadata__", ()) for part in get_args(field.annotation))]
    bounds = []
    for entry in (item for group in found for item in group):
        for rule in getattr(entry, "metadata", [entry]):
            found = [(sign, getattr(rule, key)) for key, sign in signs.items() if hasattr(rule, key)]
            bounds += [f"{sign} {bound}" for sign, bound in found if abs(bound) not in TECHNICAL]
    return ", ".join(bounds)


if __name__ == "__main__":
    main()
