"""Tokens as vectors: what each token adds to which place, and what the seed's encoding could not tell apart."""

import math

import pytest
import torch
from evaluation_helpers import ENV_INFO
from torch import Tensor

from scout.models.embedding import TokenEmbedding
from scout.observation import feature_scales, tokens_to_grid

SIZE = 6
ID = {feature.name: int(feature.id) for feature in ENV_INFO.obs_features}
# In the order of their ids.
CATEGORIES = ["agent:group", "last_action", "vibe", "tag", "collective", "agent_id", "aoe_mask", "last_action_move"]
OWN_CELL, NO_CELL, PADDING = 0x55, 0xFE, 0xFF


@pytest.fixture(scope="module")
def seen(observations: Tensor) -> Tensor:
    """Real observations uint8 [48, 200, 3], of 4 agents in each of 12 steps."""
    return observations.flatten(0, 1)


@pytest.fixture
def embedding() -> TokenEmbedding:
    torch.manual_seed(0)
    return TokenEmbedding(ENV_INFO, SIZE)


def tokens_of(*tokens: tuple[int, int, int]) -> Tensor:
    """One observation uint8 [1, T, 3] of the given tokens (place, feature, value)."""
    return torch.tensor([tokens], dtype=torch.uint8)


def row_of(feature: int, value: int) -> int:
    """Where a token's own vector lies in `vectors`: after one a feature come 256 for each category."""
    names = [name for name in CATEGORIES if ID[name] == feature]
    return len(ID) + 256 * CATEGORIES.index(names[0]) + value if names else feature


def vector_of(embedding: TokenEmbedding, feature: int, value: int) -> Tensor:
    """One token's vector, float32 [size], as the docstring of TokenEmbedding says it."""
    vector = embedding.vectors[row_of(feature, value)]
    if feature in [ID[name] for name in CATEGORIES]:
        return vector
    linear, logarithmic = embedding.slopes[feature]
    return vector + value / 255 * linear + math.log(1 + value) / math.log(256) * logarithmic


def sums_of(embedding: TokenEmbedding, observations: Tensor) -> Tensor:
    """`sums` in loops: a place is y in the high four bits and x in the low ones of an 11 x 11 window."""
    sums = torch.zeros(len(observations), 11 * 11 + 1, SIZE)
    for observation, tokens in enumerate(observations.tolist()):
        for place, feature, value in tokens:
            if place == PADDING:
                continue
            index = 121 if place == NO_CELL else place // 16 * 11 + place % 16
            sums[observation, index] += vector_of(embedding, feature, value)
    return sums


# -- a token's vector --------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_quantity_is_a_vector_and_two_slopes(embedding: TokenEmbedding) -> None:
    """Of each quantity: one vector for being there + value/255 x one slope + log(1 + value)/log(256) x another."""
    quantities = [feature for name, feature in ID.items() if name not in CATEGORIES]
    tokens = [(OWN_CELL, feature, value) for feature in quantities for value in (0, 1, 2, 5, 10, 20, 100, 254, 255)]
    expected = torch.stack([vector_of(embedding, feature, value) for _, feature, value in tokens])
    assert len(quantities) == 70
    torch.testing.assert_close(embedding(tokens_of(*tokens)).embedding, expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_category_has_a_vector_of_its_own_for_each_value(embedding: TokenEmbedding) -> None:
    """Each of 256 values of the six categories is looked up, no two alike, and nothing is added to it."""
    tokens = [(OWN_CELL, ID[name], value) for name in CATEGORIES for value in range(256)]
    found = embedding(tokens_of(*tokens)).embedding
    assert torch.equal(found, torch.stack([vector_of(embedding, feature, value) for _, feature, value in tokens]))
    assert len(found.unique(dim=0)) == 8 * 256


@torch.no_grad()
def test_vectors_begin_with_an_expected_length_of_1() -> None:
    """The mean of the squared lengths is 1, of all vectors and of all slopes, whatever their width."""
    torch.manual_seed(0)
    wide = TokenEmbedding(ENV_INFO, 64)
    assert wide.vectors.square().sum(-1).mean().item() == pytest.approx(1, abs=0.03)
    assert wide.slopes.square().sum(-1).mean().item() == pytest.approx(1, abs=0.05)


# -- where it goes -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_sums_on_real_observations_equal_the_loop(embedding: TokenEmbedding, seen: Tensor) -> None:
    """Every place of 48 observations holds the sum of its own tokens' vectors, to 1e-5."""
    torch.testing.assert_close(embedding.sums(seen), sums_of(embedding, seen), rtol=0, atol=1e-5)


@torch.no_grad()
def test_tokens_of_no_cell_go_to_the_last_place_alone(embedding: TokenEmbedding, seen: Tensor) -> None:
    """With only such tokens left, all cells are zero and the last place is the sum of all vectors."""
    of_no_cell = seen.clone()
    of_no_cell[seen[..., 0] != NO_CELL] = PADDING
    sums = embedding.sums(of_no_cell)
    for place, tokens in zip(sums[:, -1], of_no_cell.tolist(), strict=True):
        vectors = [vector_of(embedding, feature, value) for where, feature, value in tokens if where != PADDING]
        assert len(vectors) >= 8  # the time, the last action, whether it moved, the reward, and the stock of four
        torch.testing.assert_close(place, torch.stack(vectors).sum(0), rtol=0, atol=1e-5)
    assert (sums[:, :-1] == 0).all()


@torch.no_grad()
def test_padding_adds_nothing(embedding: TokenEmbedding) -> None:
    """A token whose place is 0xFF is left out, whatever its feature and value, before, between and after others."""
    first, second, padding = (0x12, ID["tag"], 13), (NO_CELL, ID["lp:east"], 3), (PADDING, ID["inv:energy"], 20)
    padded = tokens_of(padding, first, padding, (PADDING, PADDING, PADDING), second, padding)
    assert torch.equal(embedding.sums(padded), embedding.sums(tokens_of(first, second)))
    assert len(embedding(padded).embedding) == 2


@torch.no_grad()
def test_an_observation_without_any_token_is_zero(embedding: TokenEmbedding) -> None:
    """All padding: each place of both observations is exactly zero, so nothing is divided by a number of tokens."""
    empty = torch.full((2, 200, 3), PADDING, dtype=torch.uint8)
    assert torch.equal(embedding.sums(empty), torch.zeros(2, 122, SIZE))


# -- what the seed's encoding could not tell ---------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("others", [[2, 3], [5]])
def test_two_tags_of_one_cell_are_told_from_others_with_the_same_sum(
    others: list[int], embedding: TokenEmbedding
) -> None:
    """Tags 1 and 4 at one cell are another vector than 2 and 3, or 5; to the seed's encoding, which adds, the same."""
    ours, theirs = (tokens_of(*((OWN_CELL, ID["tag"], tag) for tag in tags)) for tags in ([1, 4], others))
    scales = feature_scales(ENV_INFO)
    torch.testing.assert_close(tokens_to_grid(ours, scales, 78, 11, 11), tokens_to_grid(theirs, scales, 78, 11, 11))
    assert (embedding.sums(ours) - embedding.sums(theirs)).norm() > 0.5


@torch.no_grad()
def test_little_energy_is_told_apart() -> None:
    """Energy 5 and 10 lie three times as far apart, as a part of the range from 0 to 255, as on the seed's scale."""
    torch.manual_seed(0)
    wide = TokenEmbedding(ENV_INFO, 64)  # wide, so that the two slopes are nearly at right angles
    none, five, ten, full = wide(
        tokens_of(*((OWN_CELL, ID["inv:energy"], value) for value in (0, 5, 10, 255)))
    ).embedding
    apart = (ten - five).norm() / (full - none).norm()
    # On the linear scale 5 / 255 = 0.020; with the logarithmic one sqrt(0.020^2 + 0.109^2) / sqrt(2) = 0.079.
    assert apart > 3 * 5 / 255


def test_tokens_that_never_occur_cost_nothing(seen: Tensor, embedding: TokenEmbedding) -> None:
    """Exactly the vectors of the tokens that occur have gradients, and a place is as wide as one vector."""
    sums = embedding.sums(seen)
    sums.square().sum().backward()
    occurring = seen[seen[..., 0] != PADDING][:, 1:].unique(dim=0).tolist()
    assert embedding.vectors.grad is not None
    assert embedding.slopes.grad is not None
    learning = embedding.vectors.grad.any(dim=1).nonzero().flatten().tolist()
    assert learning == sorted({row_of(feature, value) for feature, value in occurring})
    # A slope times a value of 0 is nothing, and a category has no slope.
    sloped = {feature for feature, value in occurring if value > 0} - {ID[name] for name in CATEGORIES}
    assert embedding.slopes.grad.flatten(1).any(dim=1).nonzero().flatten().tolist() == sorted(sloped)
    assert len(sloped) < 20 < len(ID)
    assert sums.shape == (48, 11 * 11 + 1, SIZE)
