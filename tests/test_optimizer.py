"""Optimizers and the learning rate's schedule."""

import math

import pytest
import torch

from scout.config import OptimizerConfig
from scout.optimizer import MuonWithAdam, learning_rate_factor, make_optimizer, make_schedule


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (0.0, [1, 0.5 * (1 + math.cos(math.pi / 4)), 0.5, 0.5 * (1 + math.cos(3 * math.pi / 4))]),
        (0.2, [1, 0.2 + 0.8 * 0.75, 0.2 + 0.8 * 0.25, 0.2]),
    ],
)
def test_the_cosine_by_hand(ratio: float, expected: list[float]) -> None:
    """Four updates: to a ratio of 0.2 with the last one there; to 0 with no update at 0."""
    assert [learning_rate_factor(update, 4, ratio) for update in range(4)] == pytest.approx(expected)


def test_a_run_of_one_update_trains_at_the_full_rate() -> None:
    """There is nothing to anneal."""
    assert learning_rate_factor(0, 1, 0.0) == 1
    assert learning_rate_factor(0, 1, 0.5) == 1


@pytest.mark.parametrize(("anneal", "expected"), [(True, [2.0, 1.25, 0.5]), (False, [2.0, 2.0, 2.0])])
def test_the_schedule_sets_the_rate_of_every_group(anneal: bool, expected: list[float]) -> None:
    """Muon's and Adam's groups both follow, or stay where they are without anneal_lr."""
    config = OptimizerConfig(name="muon", learning_rate=2.0, anneal_lr=anneal, min_lr_ratio=0.25 if anneal else 0.0)
    optimizer = make_optimizer(config, torch.nn.Linear(3, 2))
    schedule = make_schedule(config, optimizer, total_updates=3)
    rates = []
    for _ in range(3):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert rates == [[rate, rate] for rate in expected]


def test_muon_takes_the_matrices_and_adam_the_rest() -> None:
    """A vector and a convolution move as under Adam alone; a matrix does not."""
    config = OptimizerConfig(name="muon")
    shapes = [(4, 3), (5,), (2, 2, 3, 3)]
    moved = {}
    for name in ("muon", "adam"):
        generator = torch.Generator().manual_seed(0)
        module = torch.nn.ParameterList([torch.randn(shape, generator=generator) for shape in shapes])
        optimizer = make_optimizer(config.model_copy(update={"name": name}), module)
        for parameter in module:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
        moved[name] = [parameter.detach() for parameter in module]
    assert not torch.equal(moved["muon"][0], moved["adam"][0])
    assert torch.equal(moved["muon"][1], moved["adam"][1])
    assert torch.equal(moved["muon"][2], moved["adam"][2])


def test_muon_goes_on_from_its_saved_state() -> None:
    """Two steps equal one step, save, load into a new optimizer, and another step."""
    config = OptimizerConfig(name="muon")
    gradients = [torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]

    def stepped(reload: bool) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.ones(4, 3))
        bias = torch.nn.Parameter(torch.ones(3))
        optimizer = MuonWithAdam([weight, bias], config)
        for gradient in gradients:
            if reload:
                state = optimizer.state_dict()
                optimizer = MuonWithAdam([weight, bias], config)
                optimizer.load_state_dict(state)
            weight.grad, bias.grad = gradient.clone(), gradient[0].clone()
            optimizer.step()
        return torch.cat([weight.detach().flatten(), bias.detach()])

    assert torch.equal(stepped(reload=True), stepped(reload=False))
