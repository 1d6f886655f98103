"""A checkpoint -> one file: weights with their config, cogames' own format, or a traced network."""

import json
import logging
from pathlib import Path

from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from safetensors.torch import save
from torch import nn

from scout.contestants import judged_network
from scout.errors import ScoutError
from scout.model_config import CnnLstmConfig, Model
from scout.new_file import NewFile
from scout.policy import CONFIG_KEY
from scout.submission.bundle import cogames_command, fits_tutorial, saved, weights_of
from scout.submission.proof import recorded
from scout.submission.torchscript import as_torchscript
from scout.submit_config import ExportConfig

log = logging.getLogger(__name__)

ENDINGS = (".safetensors", ".pt", ".torchscript")


def export(config: ExportConfig) -> Path:
    """Writes the network of a checkpoint into the file `output`, in the format of its ending, and says how to play it.

    Raises ScoutError for a checkpoint that is not there, a file that cannot be written or is there already, and for a
    network that the format cannot hold. Then nothing of the file is left.
    """
    path = Path(str(config.output))
    file = NewFile("output", path, ENDINGS, config.overwrite)
    # torch's own layers: those of this project cannot be traced, and numba would compile them for nothing.
    policy, model, mission, game = judged_network(config, fast_layers=False)
    match path.suffix.lower():
        case ".safetensors":
            contents = as_safetensors(model, policy.network)
            how = f"Play it: {cogames_command(mission, f'class=scout.policy.ScoutPolicy,data={path}')}"
        case ".pt":
            contents = as_tutorial(model, policy.network)
            how = f"Play it: {cogames_command(mission, f'class=tutorial,data={path}')}"
        case _:
            env_info = PolicyEnvInterface.from_mg_cfg(game)
            observations = recorded(policy, game, seed=0)
            contents = as_torchscript(model, policy.network, env_info.action_names, observations)
            tokens, size = env_info.observation_space.shape[0], policy.network.hidden_size
            how = (
                f"Call it: torch.jit.load({str(path)!r})(tokens, lstm_h, lstm_c) with tokens uint8 [B, {tokens}, 3] "
                f"and the state float32 [B, {size}], zero at an episode's start, gives logits, values and the new state"
            )
    try:
        file.temporary.write_bytes(contents)
        file.keep()
    except OSError as error:
        raise file.failed(error.strerror) from error
    finally:
        file.discard()  # nothing is there when it has got its name
    log.info("Wrote %s: %s of %s, %.1f MB\n%s", path, model.target or model.name, policy.name, len(contents) / 1e6, how)
    return path


def as_safetensors(model: Model, network: nn.Module) -> bytes:
    """The weights, with the network's config as JSON in the metadata: what `scout.policy.read_network` reads.

    The same network gives the same bytes: with a second key in the metadata their order would be chance.
    """
    return save(weights_of(network), {CONFIG_KEY: json.dumps(model.model_dump())})


def as_tutorial(model: Model, network: nn.Module) -> bytes:
    """The bare state_dict that cogames' `tutorial` policy plays. Raises ScoutError for any network but the seed's."""
    if not fits_tutorial(model):
        named = model.label
        if isinstance(model, CnnLstmConfig) and model.target is None:
            seeds = CnnLstmConfig().model_dump()
            changed = {key: value for key, value in model.model_dump().items() if value != seeds[key]}
            named = " ".join([named, *(f"model.{key}={value}" for key, value in changed.items())])
        raise ScoutError(
            "A .pt is for cogames' tutorial policy, which plays the seed's network alone: model=cnn_lstm with its own "
            f"sizes. This one is {named}: take output=FILE.safetensors, which holds any network"
        )
    return saved(weights_of(network))
