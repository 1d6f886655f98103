"""From plain values to the typed schema, with one message for everything that is wrong."""

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from scout.config import Experiment, Group
from scout.errors import ScoutError, nearest


def validate[Schema: Group](schema: type[Schema], values: dict[str, Any]) -> Schema:
    """Turns plain values, such as a composed config, into the typed group.

    Raises ScoutError with one message that names every wrong key, its value and what was expected.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ScoutError("\n".join(_explain(schema, problem) for problem in error.errors())) from None


def _explain(schema: type[BaseModel], problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    key, value = ".".join(path), problem["input"]
    match problem["type"]:
        case "value_error":  # a check of ours across keys, which names them itself
            return str(problem["ctx"]["error"])
        case "extra_forbidden":
            return unknown_key(schema, key, value)
        case "model_type":
            return f"{key}={value} is not valid: expected a group of keys"
        case "missing":
            return f"{key} is missing: set it"
    expected = problem["msg"].removeprefix("Input should be ")
    if problem["type"] == "literal_error":
        expected = f"one of {expected}"
    return f"{key}={value} is not valid: expected {expected}"


def unknown_key(schema: type[BaseModel], key: str, value: object = None) -> str:
    """The message for a key that no group has: its nearest spelling among all keys, and the valid ones beside it."""
    keys = ["experiment", *all_keys(schema)] if schema is Experiment else all_keys(schema)
    prefix = key.rpartition(".")[0]
    siblings = [name.removeprefix(f"{prefix}.") for name in keys if name.rpartition(".")[0] == prefix]
    shown = key if value is None else f"{key}={value}"
    if key in keys or (prefix in keys and not siblings):  # an optional group, or free keys such as mission.rewards
        return f"{shown} is not in the composed config; `--cfg job` shows what is, and +{key}=VALUE adds it to {prefix}"
    where = f"in {prefix}" if prefix else "at the top level"
    leaf = key.rpartition(".")[2]
    return f"{shown} is not a key {where}; {nearest(leaf, siblings or keys)}"


def all_keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key of a schema, groups included."""
    keys = []
    for name, field in schema.model_fields.items():
        keys.append(prefix + name)
        group = group_of(field.annotation)
        if group is not None:
            keys += all_keys(group, f"{prefix}{name}.")
    return keys


def group_of(annotation: Any) -> type[BaseModel] | None:
    """The group that a field's type is, be it optional; None for a plain key."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None
