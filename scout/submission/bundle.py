"""A checkpoint -> the zip that cogames plays: policy_spec.json, the weights, and the code that they need."""

import ast
import hashlib
import importlib.util
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import torch
from cogames.policy.tutorial_policy import TutorialPolicy
from mettagrid.policy.submission import POLICY_SPEC_FILENAME, SubmissionPolicySpec
from torch import nn

from scout.errors import ScoutError
from scout.model_config import CnnLstmConfig, Model
from scout.policy import CONFIG_KEY, WEIGHTS_KEY, ScoutPolicy

BUNDLE = "bundle.zip"
WEIGHTS = "network.pt"
WITH_IT = {"scout", "einops"}
"""Packages whose code goes into a bundle: torch, numpy and pydantic come with mettagrid, einops does not."""
_TIME = (1980, 1, 1, 0, 0, 0)  # of every file, the earliest that a zip can say: the same bundle is the same bytes


@dataclass(frozen=True)
class Bundle:
    """A zip file that was written."""

    path: Path
    class_path: str
    sha256: str
    size: int
    """In bytes."""


def fits_tutorial(model: Model) -> bool:
    """Whether a network is the seed's, which cogames' own `tutorial` policy plays."""
    return model == CnnLstmConfig()


def write_bundle(path: Path, model: Model, network: nn.Module, greedy: bool) -> Bundle:
    """Writes the bundle of a network: as cogames' `tutorial` where that plays alike, else as a `ScoutPolicy`.

    The same network gives the same bytes. Raises ScoutError when the file cannot be written, and for a network of one's
    own whose code is not beside the project.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    files: dict[str, bytes] = {}
    if fits_tutorial(model) and not greedy:
        spec = SubmissionPolicySpec(class_path=_path_of(TutorialPolicy), data_path=WEIGHTS)
        contents: dict[str, Any] = weights
    else:
        arguments = {"device": "cpu", "greedy": greedy}
        spec = SubmissionPolicySpec(class_path=_path_of(ScoutPolicy), data_path=WEIGHTS, init_kwargs=arguments)
        contents = {CONFIG_KEY: model.model_dump(), WEIGHTS_KEY: weights}
        files = code_of(model)
        files["einops/LICENSE"] = (distribution("einops").read_text("licenses/LICENSE") or "").encode()
    files[POLICY_SPEC_FILENAME] = json.dumps(spec.model_dump(), indent=1).encode()
    files[WEIGHTS] = _saved(contents)
    try:
        with zipfile.ZipFile(path, "w") as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(name, _TIME)
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                archive.writestr(entry, files[name])
        written = path.read_bytes()
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ScoutError(f"{path} cannot be written ({error.strerror}): choose another hydra.run.dir=DIR") from error
    return Bundle(path, spec.class_path, hashlib.sha256(written).hexdigest(), len(written))


def code_of(model: Model) -> dict[str, bytes]:
    """The source files that `ScoutPolicy` needs for a network, by their names in the bundle.

    For a network of one's own that is what it imports from the folder that it lies in. Raises ScoutError where it is an
    installed package, which a server has not.
    """
    modules, own = ["scout.policy"], None
    if model.target is not None:
        modules.append(model.target.rpartition(".")[0])
        origin = _source_of(modules[-1])
        if origin is None or _is_installed(origin):
            raise ScoutError(
                f"model.target={model.target} is an installed package, and the leaderboard's server has none of yours: "
                "put its code into the folder that the command is given in"
            )
        own = origin.parents[modules[-1].count(".") + (origin.name == "__init__.py")]
    found: dict[str, bytes] = {}
    while modules:
        name = modules.pop()
        origin = _source_of(name)
        if origin is None or not (
            name.partition(".")[0] in WITH_IT
            or (own is not None and origin.is_relative_to(own) and not _is_installed(origin))
        ):
            continue
        package = origin.name == "__init__.py"
        file = name.replace(".", "/") + ("/__init__.py" if package else ".py")
        if file in found:
            continue
        found[file] = origin.read_bytes()
        modules += imports_of(found[file], name, package)
        if "." in name:
            modules.append(name.rpartition(".")[0])  # its package is imported before it
    return found


def imports_of(source: bytes, module: str, package: bool) -> Iterator[str]:
    """The names that a module's code may import, those within its functions too; of `from a import b`, a and a.b."""
    own = module if package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = own.split(".")[: len(own.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _source_of(module: str) -> Path | None:
    """The file of a module; None where there is no such module, or none in Python."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):  # `a.b` where a is no package
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin).resolve()


def _is_installed(origin: Path) -> bool:
    return "site-packages" in origin.parts


def _path_of(policy: type) -> str:
    return f"{policy.__module__}.{policy.__qualname__}"


def _saved(contents: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    return buffer.getvalue()
