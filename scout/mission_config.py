"""Which games are played: the schema of a mission, and of several that are played in turn."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from scout.group import Group, Integer, Number, Positive


class TeamConfig(Group):
    wealth: Annotated[Integer, Field(ge=0, le=100)] = 3
    """Multiplies the team's first stock of elements."""
    initial_hearts: Annotated[Integer, Field(ge=0, le=65535)] | None = 0
    """Hearts in the hub at the start; null is cogames' own 5 x wealth."""


class MissionConfig(Group):
    name: str = "scout_tutorial"
    """What the mission is called in logs."""
    target: str | None = None
    """Your own mission, as module.function: it takes this group and returns a MettaGridConfig."""
    site: Literal["cogsguard_arena", "cogsguard_machina_1"] = "cogsguard_arena"
    """The map's generator: the arena is 50 x 50 cells, machina_1 is 88 x 88."""
    spawn_count: Annotated[Integer, Field(ge=1, le=20)] = 20
    """Places on the map where agents can start; at least num_agents."""
    num_agents: Annotated[Integer, Field(ge=1, le=20)] = 4
    """Agents of a team (the variant multi_team makes two teams)."""
    max_steps: Annotated[Integer, Field(ge=1, le=1_000_000)] = 1000
    """Steps of an episode."""
    difficulty: str | None = "easy"
    """Pressure of the clips, by cogames' names: easy, medium, hard; null leaves it to the variants."""
    variants: list[str] = ["scout_rewards"]
    """Changes of the mission by cogames' names, its reward variants included, applied in this order."""
    heart_limit: Annotated[Integer, Field(ge=0, le=65535)] = 10
    """Hearts that an agent can carry."""
    team: TeamConfig = TeamConfig()
    rewards: dict[str, Number | None] = {
        "aligned_junction_held": None,
        "scout_gained": 2.0,
        "scout_lost": -2.0,
        "cell_visited": 0.0001,
    }
    """Weight of each of the mission's rewards; null keeps cogames' own (aligned_junction_held: 1 / max_steps)."""

    @property
    def agents_per_env(self) -> int:
        """Agents of one environment."""
        return self.num_agents * (2 if "multi_team" in self.variants else 1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.num_agents > self.spawn_count:
            raise ValueError(
                f"mission.num_agents={self.num_agents} does not fit mission.spawn_count={self.spawn_count}: "
                f"the map needs a place for each agent; set mission.spawn_count={self.num_agents} or more"
            )
        repeated = sorted({name for name in self.variants if self.variants.count(name) > 1})
        if repeated:
            raise ValueError(
                f"mission.variants={self.variants} has {', '.join(repeated)} more than once: once is enough"
            )
        if "multi_team" in self.variants and self.spawn_count != self.num_agents:
            raise ValueError(
                f"mission.spawn_count={self.spawn_count} does not fit the variant multi_team, which fills places at "
                f"random with either team: set mission.spawn_count={self.num_agents}, the agents of a team"
            )
        return self


class CurriculumConfig(Group):
    name: str = "none"
    """What the missions together are called in logs."""
    missions: dict[str, MissionConfig] = {}
    """Missions that the environments play in turn with `mission`, which is the first; each under its own name."""
    episodes: Positive = 1
    """Episodes that an environment plays of a mission before it goes on to the next."""
    stagger: bool = True
    """Environments begin with different missions, so that all are always played.

    false: all environments begin with the first, and go through them together, one stage after another."""

    @field_validator("missions", mode="before")
    @classmethod
    def _whole(cls, missions: Any) -> Any:
        """A key that a mission lacks would silently be the scout tutorial's."""
        for name, mission in missions.items() if isinstance(missions, dict) else ():
            lacking = MissionConfig.model_fields.keys() - mission.keys() if isinstance(mission, dict) else set()
            if lacking:
                raise ValueError(
                    f"curriculum.missions.{name} lacks {', '.join(sorted(lacking))}: a mission is given whole, as "
                    f"+mission@curriculum.missions.{name}=OPTION, or /mission@missions.{name}: OPTION in a file's "
                    "defaults"
                )
        return missions

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.missions and (self.episodes, self.stagger) != (1, True):
            raise ValueError(
                f"curriculum.episodes={self.episodes} and curriculum.stagger={str(self.stagger).lower()} "
                "have no effect without missions: take curriculum=tutorials, or leave them out"
            )
        if self.missions and self.name == "none":
            raise ValueError(
                f"curriculum.name=none has missions ({', '.join(self.missions)}): give the curriculum another name"
            )
        for name, mission in self.missions.items():
            if mission.name != name:
                raise ValueError(
                    f"curriculum.missions.{name}.name={mission.name} is not valid: expected {name}, "
                    "the name that the curriculum gives it"
                )
        return self
