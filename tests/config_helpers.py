"""Refused configs, for the tests of the schema and of its checks."""

from typing import Any

import pytest

from scout.config import Experiment, Group
from scout.errors import ScoutError
from scout.validation import validate


def refusal(schema: type[Group] = Experiment, **values: Any) -> str:
    """The message with which a config is refused."""
    with pytest.raises(ScoutError) as error:
        validate(schema, values)
    return str(error.value)


def nested(key: str, value: Any) -> dict[str, Any]:
    """A dotted key and its value, as groups within groups: ("a.b", 1) -> {"a": {"b": 1}}."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value
