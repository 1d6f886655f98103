"""Who is judged: checkpoints, sweeps of them, and baselines, all on one mission."""

import json
import logging
from dataclasses import dataclass

from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.policy.policy_env_interface import PolicyEnvInterface

from scout.baselines import VALID, is_baseline
from scout.checkpoint import Weights, load_into, load_weights
from scout.config import DeviceConfig, Experiment, MissionConfig
from scout.device import make_device
from scout.errors import ScoutError, nearest
from scout.evaluation_config import EvaluationConfig, EvaluationMission
from scout.files import CHECKPOINTS, CONFIG, STATUS
from scout.mission import make_game
from scout.model_config import CnnLstmConfig, Model
from scout.models import make_model, set_fast_layers
from scout.policies import NetworkPolicy, Policy, make_baseline
from scout.pretrained import path_of
from scout.submit_config import CheckpointConfig
from scout.validation import merged, validate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contestant:
    """One policy, and what it was made by."""

    policy: Policy
    experiment: Experiment | None
    """The run of its network; None for a baseline and a bare state_dict."""
    greedy: bool = False
    finished: bool = False
    """Whether the run came to its end."""
    model: Model | None = None
    """Of its network; None for a baseline."""

    @property
    def name(self) -> str:
        """What it is called in tables and records."""
        return self.policy.name


def make_contestants(config: EvaluationConfig) -> tuple[list[Contestant], MissionConfig, MettaGridConfig]:
    """Everybody whom the config names, in that order, and the mission that all of them play, with its game.

    Raises ScoutError for whom it does not find, and for runs of several missions where none is chosen.
    """
    if config.policy is not None and not is_baseline(config.policy):
        raise ScoutError(f"policy={config.policy} is unknown; {nearest(config.policy, VALID)}")
    names = [str(config.checkpoint)] if config.checkpoint else [config.policy] if config.policy else config.policies
    if config.policies:
        names = [each for name in names for each in _expanded(name)]
    same = [name if is_baseline(name) else str(path_of(name).resolve()) for name in names]
    repeated = sorted({name for name, place in zip(names, same, strict=True) if same.count(place) > 1})
    if repeated:
        raise ScoutError(f"policies={config.policies}: {', '.join(repeated)} is in it more than once: once is enough")
    if config.greedy and all(is_baseline(name) for name in names):
        raise ScoutError(f"greedy={str(config.greedy).lower()} has no effect on {', '.join(names)}: leave it out")
    weights = {name: load_weights(name) for name in names if not is_baseline(name) or config.checkpoint}
    if config.model is not None and all(loaded.experiment is not None for loaded in weights.values()):
        whose = f": {', '.join(weights)} has its own; leave" if weights else f" with policy={', '.join(names)}: leave"
        raise ScoutError(f"model={config.model.name} has no effect{whose} it out")
    mission = _mission(config, weights)
    game = make_game(mission)
    env_info = PolicyEnvInterface.from_mg_cfg(game)
    device = make_device(config.device) if weights else "cpu"
    styles = {False: [False], True: [True], "both": [False, True]}[config.greedy]
    found = []
    for name in names:
        if name not in weights:
            found.append(Contestant(make_baseline(name, env_info), None))
            continue
        loaded = weights[name]
        model = loaded.experiment.model if loaded.experiment else config.model or CnnLstmConfig()
        for greedy in styles:
            network = make_model(model, env_info)
            load_into(network, loaded)
            network = network.to(device)
            set_fast_layers(network, config.device.fast_layers)
            title = f"{name} (greedy)" if greedy else name
            policy = NetworkPolicy(title, network, device, greedy, config.device.precision)
            found.append(Contestant(policy, loaded.experiment, greedy, loaded.state == "finished", model))
        if config.policies and loaded.state not in (None, "finished"):
            log.warning("%s is of a run whose status is %s, so it is in no line of several seeds", name, loaded.state)
        steps = f" ({loaded.agent_steps:,} agent steps)" if loaded.agent_steps else ""
        log.info("Checkpoint: %s%s", loaded.path, steps)
    return found, mission, game


def judged_network(
    config: CheckpointConfig, greedy: bool = False, fast_layers: bool = True
) -> tuple[NetworkPolicy, Model, MissionConfig, MettaGridConfig]:
    """A checkpoint's network as evaluate.py judges it on a CPU: its policy, its config, and the mission with its game.

    Raises ScoutError as `make_contestants` does.
    """
    evaluation = EvaluationConfig(
        checkpoint=config.checkpoint,
        mission=config.mission,
        model=config.model,
        greedy=greedy,
        device=DeviceConfig(name="cpu", precision="float32", fast_layers=fast_layers),
    )
    (contestant,), mission, game = make_contestants(evaluation)
    assert isinstance(contestant.policy, NetworkPolicy)
    assert contestant.model is not None
    return contestant.policy, contestant.model, mission, game


def _expanded(name: str) -> list[str]:
    """A sweep's folder as its runs in their order; anything else as it is."""
    folder = path_of(name)
    if is_baseline(name):
        return [name]
    try:
        found = folder.exists()
    except OSError:  # a name that is too long, a folder that may not be read
        found = False
    if not found:
        raise ScoutError(
            f"policies={name} is neither a baseline nor a run folder, a sweep's folder or a checkpoint; "
            f"{nearest(name, VALID)}"
        )
    if not folder.is_dir() or (folder / CONFIG).is_file():
        return [name]
    runs = [path.parent for path in folder.glob(f"*/{STATUS}")]
    judgeable = [path for path in runs if any((path / CHECKPOINTS).glob("*.pt"))]
    if not judgeable:
        raise ScoutError(
            f"policies={name} has no run with a checkpoint in it: expected a run folder or a sweep's. "
            "A name with a comma needs quotes of its own: policies=['\"a,b\"',random]"
        )
    for path in sorted(set(runs) - set(judgeable)):
        log.warning("%s has no checkpoint yet, so it is left out", path)
    return [str(path) for path in sorted(judgeable, key=lambda path: (len(path.name), path.name))]


def _mission(config: EvaluationConfig, weights: dict[str, Weights]) -> MissionConfig:
    """The mission that is named whole, or the runs' with the single keys that are given."""
    given = config.mission or {}
    if given.keys() >= MissionConfig.model_fields.keys():
        return validate(EvaluationMission, {"mission": given}).mission
    theirs = {name: loaded.experiment.mission for name, loaded in weights.items() if loaded.experiment}
    different = {json.dumps(mission.model_dump(exclude={"name"})) for mission in theirs.values()}
    if len(different) > 1:
        listed = ", ".join(f"{name}: {mission.name}" for name, mission in theirs.items())
        raise ScoutError(
            f"policies: the runs were trained on different missions ({listed}); "
            "choose the one to judge them on, for instance mission=scout_tutorial"
        )
    for name, loaded in weights.items():
        if loaded.experiment and loaded.experiment.curriculum.missions and not given:
            others = ", ".join(loaded.experiment.curriculum.missions)
            log.info("%s was trained on %s too: mission=NAME chooses one of them", name, others)
    base = next(iter(theirs.values()), MissionConfig()).model_dump()
    return validate(EvaluationMission, {"mission": merged(base, given)}).mission
