"""Advantages, computed by hand: the last step of a rollout, terminals, truncations, V-trace's ceilings."""

import torch

from scout.advantages import Timeline, generalized_advantages
from scout.config import TrainerConfig
from scout.pufferl import pufferl

CONFIG = TrainerConfig(gamma=0.5, gae_lambda=0.5, vtrace_rho_clip=1.0, vtrace_c_clip=1.0)


def advantages_by_hand_case(
    terminals: list[float], truncations: list[float], ends: tuple[float, float] = (0, 0), ratio: float = 1.0
) -> list[float]:
    """Advantages of two steps with values 1, 2 and then 4, and rewards 3 and then 1 arriving after them."""
    rows = ([1, 2, 4], [9, 3, 1], [*terminals, ends[0]], [*truncations, ends[1]])
    timeline = Timeline(*(torch.tensor([row], dtype=torch.float32) for row in rows))
    return generalized_advantages(timeline, torch.full((1, 2), ratio), CONFIG)[0].tolist()


def test_the_last_step_has_a_bootstrap_value_and_keeps_its_reward() -> None:
    """A[1] = 1 + 0.5 x 4 - 2 = 1 and A[0] = 3 + 0.5 x 2 - 1 + 0.25 x 1 = 3.25, where PuffeRL has 0 and 3."""
    assert advantages_by_hand_case([0, 0], [0, 0]) == [3.25, 1.0]
    stock = pufferl.compute_puff_advantage(
        *(torch.tensor([row], dtype=torch.float32) for row in ([1, 2], [9, 3], [0, 0], [1, 1], [0, 0])),
        *(0.5, 0.5, 1.0, 1.0),  # pyright: ignore[reportCallIssue]
    )
    assert stock[0].tolist() == [3.0, 0.0]


def test_nothing_comes_after_a_terminal() -> None:
    """With a terminal arriving after step 1: A[1] = 1 - 2 = -1 and A[0] = 3 + 1 - 1 - 0.25 = 2.75."""
    assert advantages_by_hand_case([0, 0], [0, 0], ends=(1, 0)) == [2.75, -1.0]


def test_a_terminal_within_the_segment_cuts_value_and_trace() -> None:
    """With a terminal at step 1: A[0] = 3 - 1 = 2, while A[1] starts anew."""
    assert advantages_by_hand_case([0, 1], [0, 0]) == [2.0, 1.0]


def test_a_truncation_keeps_the_value_and_cuts_the_trace() -> None:
    """With a truncation at step 1: A[0] = 3 + 0.5 x 2 - 1 = 3, without the 0.25 from the episode after it."""
    assert advantages_by_hand_case([0, 0], [0, 1]) == [3.0, 1.0]


def test_a_truncation_after_the_last_step_keeps_the_value() -> None:
    """The bootstrap value counts whether the episode goes on or was cut there: A is that of an open end."""
    assert advantages_by_hand_case([0, 0], [0, 0], ends=(0, 1)) == [3.25, 1.0]


def test_a_terminal_outweighs_a_truncation_at_the_same_step() -> None:
    """An early reset that falls on the last step of an episode does not bring its value back."""
    assert advantages_by_hand_case([0, 1], [0, 1]) == [2.0, 1.0]


def test_the_ratios_are_cut_at_their_ceilings() -> None:
    """With ratios of 0.5: A[1] = 0.5 x 1, A[0] = 0.5 x 3 + 0.25 x 0.5 x 0.5; ratios above 1 count as 1."""
    assert advantages_by_hand_case([0, 0], [0, 0], ratio=0.5) == [1.5625, 0.5]
    assert advantages_by_hand_case([0, 0], [0, 0], ratio=7.0) == [3.25, 1.0]


def test_advantages_equal_a_plain_twin() -> None:
    """On random rollouts with ends of both kinds, the vectorised sum equals the definition, to 1e-5."""
    generator = torch.Generator().manual_seed(0)
    segments, steps = 6, 20
    values, rewards = torch.randn(2, segments, steps + 1, generator=generator)
    terminals, truncations = (torch.rand(2, segments, steps + 1, generator=generator) < 0.15).float()
    ratio = torch.rand(segments, steps, generator=generator) * 2
    config = TrainerConfig(gamma=0.97, gae_lambda=0.8, vtrace_rho_clip=1.2, vtrace_c_clip=0.9)
    actual = generalized_advantages(Timeline(values, rewards, terminals, truncations), ratio, config)
    expected = torch.zeros(segments, steps)
    for row in range(segments):
        trace = 0.0
        for t in reversed(range(steps)):
            goes_on = 1 - terminals[row, t + 1]
            delta = rewards[row, t + 1] + 0.97 * values[row, t + 1] * goes_on - values[row, t]
            trace = min(ratio[row, t], 1.2) * delta + 0.97 * 0.8 * min(ratio[row, t], 0.9) * trace * goes_on * (
                1 - truncations[row, t + 1]
            )
            expected[row, t] = trace
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
