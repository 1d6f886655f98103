"""Who is compared on docs/results.md: what is trained, with which seeds, under which question."""

from collections.abc import Sequence
from typing import NamedTuple


class Contender(NamedTuple):
    """What is written after `python`, but for the seed, and what its runs are called on the page."""

    title: str
    overrides: Sequence[str] = ()
    script: tuple[str, ...] = ("train.py",)
    seeds: tuple[int, ...] = (1, 2, 3)
    judged_on: tuple[str, ...] = ()
    """Missions; none is the one that it was trained on."""


def _corrected(title: str, *overrides: str) -> Contender:
    return Contender(title, overrides, seeds=(1, 2))


def _taken_back(title: str, name: str) -> Contender:
    return Contender(title, script=("benchmarks/corrections.py", name), seeds=(1, 2))


def _on(mission: str) -> Contender:
    seeds = (1,) if mission == "arena" else (1, 2)  # no reward is found there
    return Contender(f"`mission={mission}`", [f"mission={mission}", "total_timesteps=3_200_000"], seeds=seeds)


def _steps(title: str, steps: str, *overrides: str, seeds: tuple[int, ...] = (1, 2)) -> Contender:
    return Contender(title, [*overrides, f"total_timesteps={steps}"], seeds=seeds)


_AS_LONG = ["total_timesteps=1_000_000", "evaluation.every=250_000"]
SECTIONS: dict[str, dict[str, Contender]] = {
    "recipes": {
        "default": Contender("the default", seeds=tuple(range(1, 9))),  # more, for it is the reference of most tables
        "cnn_lstm": _steps(
            "the default, the notebook's network, 1.5 M steps", "1_500_000", "model=cnn_lstm", seeds=(1, 2, 3)
        ),
        "straight": Contender("the default without turned views", ["model.turned_views=false"]),
        "unscaled": Contender("the default without normalized rewards", ["trainer.normalize_rewards=false"]),
        "no_excursions": Contender("the default without excursions", ["trainer.excursion_share=0"]),
        "stock": Contender("`trainer=pufferl`, else the default", ["trainer=pufferl"]),
        "stock_cnn_lstm": Contender(
            "both: `trainer=pufferl`, the notebook's network", ["trainer=pufferl", "model=cnn_lstm"], seeds=(1, 2)
        ),
        "seed": Contender("the notebook's recipe", ["experiment=notebook", *_AS_LONG]),
    },
    "corrections": {
        "last_step": _taken_back("last step of a segment", "last_step"),
        "cut_episodes": _taken_back("episodes that were cut short", "cut_episodes"),
        "no_carry": _corrected("states carried from rollout to rollout", "trainer.carry_state=false"),
        "episode_ends": _taken_back("states begun anew with each episode", "episode_ends"),
        "initial_states": _taken_back("training from the states played with", "initial_states"),
        "final_steps": _taken_back("final observations left out", "final_steps"),
        "clamped": _corrected(
            "rewards normalized, not clamped", "trainer.normalize_rewards=false", "trainer.reward_clip=1"
        ),
        "prioritized": _corrected("each segment once an epoch", "trainer.prioritized_replay=true"),
        "held_values": _corrected("values not held near the old", "trainer.vf_clip_coef=0.2"),
        "stock_minutes": _steps("all, in the default's minutes", "520_000", "trainer=pufferl", seeds=(1, 2, 3)),
    },
    "models": {
        "attention": Contender("`model=attention`", ["model=attention"], seeds=(1, 2)),
        "attention_minutes": _steps("`model=attention`", "525_000", "model=attention"),
        "memoryless": Contender("`model=conv_memoryless`", ["model=conv_memoryless"], seeds=(1, 2)),
        "memoryless_minutes": _steps("`model=conv_memoryless`", "1_350_000", "model=conv_memoryless"),
        "seed_network": Contender("`model=cnn_lstm`", ["model=cnn_lstm"], seeds=(1, 2)),
        "seed_network_minutes": _steps("`model=cnn_lstm`", "700_000", "model=cnn_lstm"),
    },
    "widths": {
        f"width_{width}": Contender(f"`model.hidden_size={width}`", [f"model.hidden_size={width}"], seeds=(1, 2))
        for width in (64, 128, 512, 1024)
    },
    "budgets": {
        "budget_250k": _steps("the default, 0.25 M steps", "250_000", seeds=(1, 2, 3)),
        "budget_500k": _steps("the default, 0.5 M steps", "500_000", seeds=(1, 2, 3)),
        "budget_3m": _steps(
            "the default, 3 M steps", "3_000_000", "evaluation.every=100_000", "evaluation.episodes=16", seeds=(1, 2, 3)
        ),
        "budget_10m": Contender("`experiment=scout`: 10 M steps", ["experiment=scout"]),
        "budget_20m": _steps("the default, 20 M steps", "20_000_000", "evaluation.every=500_000", seeds=(1,)),
    },
    "missions": {
        mission: _on(mission) for mission in ("miner_tutorial", "aligner_tutorial", "scrambler_tutorial", "arena")
    },
}
MISSIONS = ("scout_tutorial", *SECTIONS["missions"])
TUTORIALS = MISSIONS[:4]
_IN_TURN = ["curriculum=tutorials", "total_timesteps=12_800_000", "evaluation.every=1_000_000"]
SECTIONS["missions"] |= {
    "in_turn": Contender("all tutorials in turn", _IN_TURN, seeds=(1,), judged_on=TUTORIALS),
}
PARTS = ("default", "no_excursions", "straight", "unscaled")
"""Of the recipe, by the contenders of the scout tutorial that lack one."""


def part_on(mission: str, part: str) -> str:
    """The contender that lacks it on another tutorial."""
    return f"{mission.removesuffix('_tutorial')}_{part}"


SECTIONS["parts"] = {
    part_on(mission, part): Contender(
        f"{SECTIONS['recipes'][part].title}, `mission={mission}`",
        [f"mission={mission}", *SECTIONS["recipes"][part].overrides],
        seeds=(1,) if mission == "scrambler_tutorial" else (1, 2),
    )
    for mission in TUTORIALS[1:]
    for part in PARTS
}
CONTENDERS: dict[str, Contender] = {name: each for section in SECTIONS.values() for name, each in section.items()}
