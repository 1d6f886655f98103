"""What every group of the schema is made of: a strict, frozen pydantic model, and the kinds of numbers in it."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _whole_number(value: Any) -> Any:
    """Lets 1e6 through for an integer, since that is how people write a million; 1.5 and '7' stay wrong."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(_whole_number)]
Positive = Annotated[Integer, Field(ge=1, le=2**62)]
Size = Annotated[Integer, Field(ge=1, le=2**16)]
"""Of a layer; whether all layers fit into memory is estimated before they are made."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
"""Of something of which a part must remain."""
Number = Annotated[float, Field(ge=-1e30, le=1e30)]
"""Fits into float32, in which everything is computed."""
NonNegative = Annotated[Number, Field(ge=0)]
PositiveNumber = Annotated[Number, Field(gt=0)]


class Group(BaseModel):
    """A group of keys: unknown keys, wrong types, nan and inf are refused, and nothing changes after validation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def chosen_by_name(default: str) -> Callable[[Any], Any]:
    """Which of several groups is meant, for pydantic's Discriminator: its `name`, or the default without one."""
    return lambda value: str(value.get("name", default)) if isinstance(value, dict) else getattr(value, "name", None)
