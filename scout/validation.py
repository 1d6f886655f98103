"""From plain values to the typed schema, with one message for everything that is wrong."""

from collections.abc import Sequence
from typing import Any, get_args, get_origin

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
    path, group = _place(schema, [str(part) for part in problem["loc"]])
    key, value = ".".join(path), problem["input"]
    match problem["type"]:
        case "value_error":  # a check of ours across keys, which names them itself
            text = str(problem["ctx"]["error"])
            return text.replace("mission.", f"{key}.") if key.startswith("curriculum.missions.") else text
        case "extra_forbidden":
            return unknown_key(schema, key, value, None if group is schema else [*group.model_fields])
        case "model_type" | "union_tag_not_found":
            return f"{key}={value} is not valid: expected a group of keys"
        case "union_tag_invalid":
            return f"{key}.name={problem['ctx']['tag']} is not valid: expected one of {problem['ctx']['expected_tags']}"
        case "string_pattern_mismatch":
            return f"{key}={value} is not valid: expected letters, digits, _, - and ., the first of them no - or ."
        case "missing":
            return f"{key} is missing: set it"
        case "string_type" if isinstance(value, int | float):
            return f"{key}={value} is not valid: expected a text; a number needs quotes of its own: '{key}=\"{value}\"'"
    expected = problem["msg"].removeprefix("Input should be ").removeprefix("List should have ")
    if problem["type"] == "literal_error":
        expected = f"one of {expected}"
    return f"{key}={value} is not valid: expected {expected}"


def _place(schema: type[BaseModel], location: list[str]) -> tuple[list[str], type[BaseModel]]:
    """The dotted key's parts, and the group it stands in, of a pydantic location.

    Where a group is one of several (model), pydantic adds its name to the location, which is no part of the key.
    """
    path, group, parts = [], schema, list(location)
    while parts:
        path.append(parts.pop(0))
        field = group.model_fields.get(path[-1])
        groups = groups_of(field.annotation) if field else []
        named = _named_group(field.annotation) if field else None
        if named is not None and parts:
            path.append(parts.pop(0))
            group = named
        elif len(groups) > 1 and parts:
            name = parts.pop(0)
            group = next(option for option in groups if option.model_fields["name"].default == name)
        elif groups and parts:
            group = groups[0]
    return path, group


def unknown_key(schema: type[BaseModel], key: str, value: object = None, siblings: Sequence[str] | None = None) -> str:
    """The message for a key that its group does not have: the nearest spelling among all keys, and the valid ones.

    `siblings` are the keys of the very group; without them, those of all groups that could stand there.
    """
    keys = ["experiment", *all_keys(schema)] if schema is Experiment else all_keys(schema)
    prefix, _, leaf = key.rpartition(".")
    shown = key if value is None else f"{key}={value}"
    if siblings is None:
        siblings = [name.removeprefix(f"{prefix}.") for name in keys if name.rpartition(".")[0] == prefix]
        known = prefix
        while known and known not in keys:
            known = known.rpartition(".")[0]
        free = _dictionary(schema, known.split("."))
        if _named_group(free) is not None and "." in key.removeprefix(f"{known}."):  # in a group that has a name
            return unknown_key(schema, key, value, [*_place(schema, key.split("."))[1].model_fields])
        whole = str(value).startswith("{")  # of several keys at once, one of which is not there
        if prefix and key in keys and not free and not whole and schema is Experiment:
            return f"{shown} is a key of another option of {prefix}; `--cfg job` shows the keys of the chosen one"
        if key in keys or free:  # an optional group of evaluate.py, or free keys
            adds = f"+{key}.NAME=VALUE adds one to {key}" if whole else f"+{key}=VALUE adds it to {prefix}"
            return f"{shown} is not in the composed config; `--cfg job` shows what is, and {adds}"
        if prefix in keys and not siblings:
            return f"{shown} is not a key: {prefix} is a single value"
        if known != prefix:
            part = prefix.removeprefix(f"{known}.").partition(".")[0]
            return unknown_key(schema, f"{known}.{part}" if known else part)
    where = f"in {prefix}" if prefix else "at the top level"
    return f"{shown} is not a key {where}; {nearest(leaf, siblings or keys)}"


def _dictionary(schema: type[BaseModel], path: Sequence[str]) -> Any:
    """The type of the dictionary at this path, which takes any key, as mission.rewards is; None for anything else."""
    field = schema.model_fields.get(path[0])
    if field is None:
        return None
    if len(path) > 1:
        kinds = [_dictionary(group, path[1:]) for group in groups_of(field.annotation)]
    else:
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if get_origin(kind) is dict]
    return next(filter(None, kinds), None)


def all_keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key of a schema, groups included; where there are several groups to choose from, those of each."""
    keys = []
    for name, field in schema.model_fields.items():
        keys.append(prefix + name)
        for group in groups_of(field.annotation):
            keys += [key for key in all_keys(group, f"{prefix}{name}.") if key not in keys]
    return keys


def _named_group(annotation: Any) -> type[BaseModel] | None:
    """What stands under each of a dictionary's names, as in curriculum.missions; None where that is no group."""
    kinds = get_args(annotation)
    return next(iter(groups_of(kinds[1])), None) if get_origin(annotation) is dict else None


def groups_of(annotation: Any) -> list[type[BaseModel]]:
    """The groups that a field can be: none for a plain key, several where its `name` chooses one."""
    if get_origin(annotation) is dict:
        return []
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [group for part in get_args(annotation) for group in groups_of(part)]


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested groups as dotted keys."""
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return found


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested groups with the keys of others put over them."""
    deeper = {key: merged(base[key], value) for key, value in changes.items() if _both_groups(base.get(key), value)}
    return {**base, **changes, **deeper}


def _both_groups(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)
