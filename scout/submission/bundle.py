"""A checkpoint -> the zip that cogames plays: policy_spec.json, the weights, and the code that they need."""

import hashlib
import io
import json
import shlex
import zipfile
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import torch
from cogames.cogs_vs_clips.missions import get_core_missions
from cogames.policy.tutorial_policy import TutorialPolicy
from mettagrid.policy.submission import POLICY_SPEC_FILENAME, SubmissionPolicySpec
from torch import Tensor, nn

from scout.config import MissionConfig
from scout.errors import ScoutError
from scout.model_config import CnnLstmConfig, Model
from scout.policy import CONFIG_KEY, WEIGHTS_KEY, ScoutPolicy
from scout.submission.code import code_of

BUNDLE = "bundle.zip"
WEIGHTS = "network.pt"
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

    The same network gives the same bytes. Raises ScoutError where another bundle is there, and for a network of one's
    own that is an installed package; OSError when the file cannot be written.
    """
    weights = weights_of(network)
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
    files[WEIGHTS] = saved(contents)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, files[name])
    written = buffer.getvalue()
    if path.exists() and path.read_bytes() != written:
        raise ScoutError(f"{path} exists already, and is another bundle: choose another folder with hydra.run.dir=DIR")
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_bytes(written)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return Bundle(path, spec.class_path, hashlib.sha256(written).hexdigest(), len(written))


def cogames_command(mission: MissionConfig, policy: str) -> str:
    """How cogames plays a policy, by its own description of one, for an episode of its own mission of that name."""
    if policy.count(",") > policy.startswith("class="):
        return "give it a name without a comma, which cogames cannot read"
    name = f"{mission.site}.{mission.name}"
    known = name in [core.full_name() for core in get_core_missions()]
    return f"cogames eval -m {name if known else 'MISSION'} -p {shlex.quote(policy)} -e 1"


def _path_of(policy: type) -> str:
    return f"{policy.__module__}.{policy.__qualname__}"


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Each tensor with a memory of its own, in its plain order: some weights are channels_last."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}


def saved(contents: dict[str, Any]) -> bytes:
    """What torch.save writes, without a file, whose name would be in it."""
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    return buffer.getvalue()
