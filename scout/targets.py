"""Models and missions from outside the package, named as `module.attribute`."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scout.errors import ScoutError


def load_target(key: str, path: str) -> Callable[..., Any]:
    """The callable that `path` names, looked up in the working folder too.

    Raises ScoutError naming `key` when there is no such module or attribute, or when it cannot be called.
    """
    module_name, _, attribute = path.rpartition(".")
    if not module_name:
        raise ScoutError(f"{key}={path} is not valid: expected module.attribute, such as my_module.Net")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        target = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        where = "; it is looked for in the folder that the command is given in, and in PYTHONPATH"
        unknown = isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]
        raise ScoutError(f"{key}={path} cannot be loaded: {error}{where if unknown else ''}") from error
    if not callable(target):
        raise ScoutError(f"{key}={path} is a {type(target).__name__}: expected a class or a function")
    return target
