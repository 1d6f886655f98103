"""Drawing actions and looking back on them."""

import torch

from scout import categorical


def test_actions_are_drawn_as_often_as_their_probability_says() -> None:
    """Of 100,000 draws, each share is the softmax's to 5 standard deviations, and a logit of -inf is never drawn."""
    torch.manual_seed(0)
    probabilities = torch.tensor([0.5, 0.3, 0.2, 0.0])
    actions, logarithms = categorical.draw(probabilities.log().expand(100_000, 4))
    shares = actions.bincount(minlength=4) / 100_000
    assert (shares - probabilities).abs().max() < 5 * (0.25 / 100_000) ** 0.5
    assert shares[3] == 0
    torch.testing.assert_close(logarithms, probabilities.log()[actions])


def test_log_probabilities_and_entropies_are_those_by_hand() -> None:
    """Of 1/4, 3/4 and 0: log(1/4) and log(3/4); the entropy is 0.25 log 4 + 0.75 log(4/3) = 0.562, and has gradients.

    The gradient of the entropy by a logit is -p (log p + entropy): 0.25 x (1.386 - 0.562) = 0.206 for the first.
    """
    logits = torch.tensor([[1.0, 3.0, 0.0], [1.0, 3.0, 0.0]]).log().requires_grad_()
    logarithms, entropy = categorical.look_back(logits, torch.tensor([0, 1]))
    torch.testing.assert_close(logarithms, torch.tensor([0.25, 0.75]).log())
    torch.testing.assert_close(entropy, torch.full((2,), 0.5623351))
    entropy.sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.2059898, -0.2059898, 0.0]]).expand(2, 3))
