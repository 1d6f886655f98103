"""Which source files a network needs where this project is not: those of its modules and of all that they import."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import einops

import scout
from scout.errors import ScoutError
from scout.model_config import Model


def code_of(model: Model) -> dict[str, bytes]:
    """The files that `ScoutPolicy` needs for a network, by their names in a bundle. Nothing is imported to find them.

    They are of this project, of einops, which mettagrid does not bring along as it does torch, numpy and pydantic, and
    for a network of one's own of the folder that it lies in. Raises ScoutError where that is an installed package.
    """
    folders: list[tuple[Path, str | None]] = [
        (Path(package.__file__ or "").parents[1], package.__name__) for package in (scout, einops)
    ]
    modules = ["scout.policy"]
    if model.target is not None:
        module = model.target.rpartition(".")[0]
        file = Path(importlib.import_module(module).__file__ or "")
        if file.suffix != ".py" or "site-packages" in file.parts:
            raise ScoutError(
                f"model.target={model.target} is an installed package, and the leaderboard's server has none of yours: "
                "put its code into the folder that the command is given in"
            )
        modules.append(module)
        folders.append((file.parents[module.count(".") + (file.name == "__init__.py")], None))
    found: dict[str, bytes] = {}
    while modules:
        module = modules.pop()
        for folder, package in folders:
            if package not in (None, module.partition(".")[0]):
                continue
            name = module.replace(".", "/")
            file = next((file for file in (f"{name}/__init__.py", f"{name}.py") if (folder / file).is_file()), None)
            if file is None:
                continue
            if file not in found:
                found[file] = (folder / file).read_bytes()
                modules += imports_of(found[file], module, file.endswith("/__init__.py"))
            break
        if "." in module:
            modules.append(module.rpartition(".")[0])  # its package is imported before it
    return found


def imports_of(source: bytes, module: str, package: bool) -> Iterator[str]:
    """The names that a module's code may import, those within its functions too; of `from a import b`, a and a.b."""
    own = module if package else module.rpartition(".")[0]
    try:
        tree = ast.parse(source)
    except SyntaxError:  # of another Python, or a template: nothing can import it here either
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = own.split(".")[: len(own.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
