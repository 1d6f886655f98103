"""MissionConfig -> cogames' CvCMission -> mettagrid's MettaGridConfig."""

import warnings

from cogames.cogs_vs_clips.aligner_tutorial import AlignerRewardsVariant
from cogames.cogs_vs_clips.clip_difficulty import COGSGUARD_DIFFICULTIES
from cogames.cogs_vs_clips.cog import CogConfig
from cogames.cogs_vs_clips.miner_tutorial import MinerRewardsVariant
from cogames.cogs_vs_clips.mission import CvCMission
from cogames.cogs_vs_clips.reward_variants import AVAILABLE_REWARD_VARIANTS, apply_reward_variants
from cogames.cogs_vs_clips.scout_tutorial import ScoutRewardsVariant
from cogames.cogs_vs_clips.scrambler_tutorial import AllJunctionsClipsAligned, ScramblerRewardsVariant
from cogames.cogs_vs_clips.sites import make_cogsguard_arena_site, make_cogsguard_machina1_site
from cogames.cogs_vs_clips.team import CogTeam
from cogames.cogs_vs_clips.variants import HIDDEN_VARIANTS, VARIANTS
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.policy.policy_env_interface import PolicyEnvInterface

from scout.config import Experiment, MissionConfig
from scout.errors import ScoutError, nearest
from scout.targets import load_target

# mettagrid serialises its map scenes in a way that pydantic remarks upon at every new map; nothing is wrong with them.
warnings.filterwarnings("ignore", message="Pydantic serializer warnings", category=UserWarning)

SITES = {"cogsguard_arena": make_cogsguard_arena_site, "cogsguard_machina_1": make_cogsguard_machina1_site}
DIFFICULTIES = {difficulty.name: difficulty for difficulty in COGSGUARD_DIFFICULTIES}
MISSION_VARIANTS = {
    variant.name: variant
    for variant in (
        *VARIANTS,
        *HIDDEN_VARIANTS,
        AlignerRewardsVariant(),
        MinerRewardsVariant(),
        ScoutRewardsVariant(),
        ScramblerRewardsVariant(),
        AllJunctionsClipsAligned(),
    )
}
REWARD_VARIANTS = frozenset(AVAILABLE_REWARD_VARIANTS)  # applied to the finished config, after the mission's variants


def make_mission(config: MissionConfig) -> CvCMission:
    """The mission as cogames builds it, without cogames' reward variants and without changed weights.

    Raises ScoutError for a difficulty or a variant that cogames does not know, with the list of those it does.
    """
    variants = []
    if config.difficulty is not None:
        if config.difficulty not in DIFFICULTIES:
            raise ScoutError(
                f"mission.difficulty={config.difficulty} is unknown; {nearest(config.difficulty, DIFFICULTIES)}"
            )
        variants.append(DIFFICULTIES[config.difficulty])
    for name in config.variants:
        if name not in MISSION_VARIANTS and name not in REWARD_VARIANTS:
            raise ScoutError(
                f"mission.variants={name} is unknown; {nearest(name, [*MISSION_VARIANTS, *REWARD_VARIANTS])}"
            )
        if name in MISSION_VARIANTS:
            variants.append(MISSION_VARIANTS[name].model_copy(deep=True))
    team = CogTeam(
        name="cogs",
        num_agents=config.num_agents,
        wealth=config.team.wealth,
        initial_hearts=config.team.initial_hearts,
    )
    return CvCMission(
        name=config.name,
        description=f"{config.name} of this project",
        site=SITES[config.site](config.spawn_count),
        num_cogs=config.num_agents,
        max_steps=config.max_steps,
        cog=CogConfig(heart_limit=config.heart_limit),
        teams={team.name: team},
        variants=variants,
    )


def make_game(config: MissionConfig) -> MettaGridConfig:
    """The environment's config: the mission, cogames' reward variants, then the weights under `mission.rewards`.

    Raises ScoutError for names that cogames does not know and for rewards that the mission does not have.
    """
    if config.target is not None:
        game = load_target("mission.target", config.target)(config)
        if not isinstance(game, MettaGridConfig):
            raise ScoutError(f"mission.target={config.target} made a {type(game).__name__}: expected a MettaGridConfig")
    else:
        mission = make_mission(config)
        try:
            game = mission.make_env()
        except Exception as error:  # whatever cogames makes of variants that contradict each other
            raise ScoutError(
                f"mission.variants={config.variants}: cogames cannot build them together ({error!r}); leave some out"
            ) from error
        apply_reward_variants(game, variants=[name for name in config.variants if name in REWARD_VARIANTS])
        _set_reward_weights(game, config.rewards)
    if game.game.num_agents != config.agents_per_env:
        raise ScoutError(
            f"mission.num_agents={config.num_agents}: the mission {config.name} was built for {game.game.num_agents} "
            f"agents; set mission.num_agents={game.game.num_agents}"
        )
    return game


def make_games(experiment: Experiment, first: MettaGridConfig) -> tuple[MettaGridConfig, ...]:
    """The game of `mission`, which is given, and those of the curriculum's missions after it.

    Raises ScoutError as `make_game` does, and for one whose observations or actions are others than the first one's.
    """
    games = [first]
    for name, mission in experiment.curriculum.missions.items():
        try:
            game = make_game(mission)
        except ScoutError as error:
            raise ScoutError(f"curriculum.missions.{name}: {error}") from error
        seen, expected = (PolicyEnvInterface.from_mg_cfg(each) for each in (game, first))
        for what in ("obs_features", "tags", "action_names", "observation_shape", "egocentric_shape"):
            if getattr(seen, what) != getattr(expected, what):
                raise ScoutError(
                    f"curriculum.missions.{name} has other {what} than mission={experiment.mission.name}: one network "
                    f"cannot play both; take it out with ~curriculum.missions.{name}"
                )
        lengths = game.game.max_steps, first.game.max_steps
        if lengths[0] != lengths[1]:  # a variant or a mission of one's own has set it
            raise ScoutError(
                f"curriculum.missions.{name} has episodes of {lengths[0]} steps and mission={experiment.mission.name} "
                f"of {lengths[1]}: episodes of all missions are of one length"
            )
        games.append(game)
    return tuple(games)


def _set_reward_weights(game: MettaGridConfig, weights: dict[str, float | None]) -> None:
    for agent in game.game.agents:
        rewards = dict(agent.rewards)
        for name, weight in weights.items():
            if weight is None:
                continue
            if name not in rewards:
                raise ScoutError(
                    f"mission.rewards.{name}={weight}: this mission has no such reward; set it to null or add "
                    f"the variant that brings it; {nearest(name, rewards)}"
                )
            rewards[name] = rewards[name].model_copy(update={"weight": weight})
        agent.rewards = rewards
