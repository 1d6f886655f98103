"""One run in several processes, as torchrun starts them: which one this is, and what it shares with the others.

Each rank plays environments of its own and has the same network. What is added up over ranks is added up in the same
order on each, so that all go on with the very same numbers. torch is imported where it is needed: the command asks for
its rank before a config is checked.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import psutil

from scout.errors import ScoutError, SharedError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from scout.rank_link import Link


class RankLost(ScoutError):
    """Another rank died or failed, which a collective of this one noticed."""


class Moments(NamedTuple):
    """Of some values."""

    number: "Tensor"
    mean: "Tensor"
    squares: "Tensor"
    """The sum of their squared distances from the mean."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of a job. What one process does alone is what it did before there were any others."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among those of this machine."""
    local_size: int = 1
    restarts: int = 0
    """How often torchrun has started the job again."""
    link: "Link | None" = field(default=None, compare=False)
    """To the others, once they have met (rank_link.py)."""

    @classmethod
    def from_environment(cls) -> Self:
        """What torchrun says; alone without it. Raises ScoutError when it makes no sense."""
        try:
            rank, size = (int(os.environ.get(name, alone)) for name, alone in (("RANK", 0), ("WORLD_SIZE", 1)))
            local_rank = int(os.environ.get("LOCAL_RANK", rank))
            local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
            restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
        except ValueError as error:
            raise ScoutError(f"RANK, WORLD_SIZE and the like are torchrun's, and integers: {error}") from error
        if not 0 <= rank < size:
            raise ScoutError(f"RANK={rank} is not below WORLD_SIZE={size}: unset both, or start with torchrun")
        return cls(rank, size, local_rank, local_size, restarts)

    @property
    def agent(self) -> str | None:
        """The torchrun that started this process, which is the same when it starts the job again; None when alone."""
        if self.size == 1:
            return None
        agent = psutil.Process(os.getppid())
        return f"{agent.pid} of {agent.create_time():.2f}"

    @property
    def first(self) -> bool:
        """Whether this is the one rank that writes and speaks."""
        return self.rank == 0

    # -- what is drawn ------------------------------------------------------------------------------------------------

    def own(self, drawn: "Tensor") -> "Tensor":
        """This rank's part [N, ...] of what was drawn for the agents of all ranks, [size x N, ...].

        So the generators stay alike, and an agent has the noise that it would have in one process.
        """
        return drawn.view(self.size, -1, *drawn.shape[1:])[self.rank]

    # -- what is shared -----------------------------------------------------------------------------------------------

    def sum(self, values: "Tensor", what: str) -> "Tensor":
        """The sum over ranks of tensors of one shape."""
        if self.size == 1:
            return values
        from torch import distributed

        total = values.detach().clone()
        with self._together(what):
            distributed.all_reduce(total)
        return total

    def largest(self, numbers: list[int], what: str) -> list[int]:
        """Of each number the largest that a rank has."""
        if self.size == 1:
            return numbers
        import torch
        from torch import distributed

        found = torch.tensor(numbers)
        with self._together(what):
            distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return found.tolist()

    def moments(self, values: "Tensor") -> "Moments":
        """Of all ranks' values together, any number of them on each, in one exchange; of several ranks float64."""
        if self.size == 1:
            number = values.new_tensor(values.numel())
            return Moments(number, values.mean(), ((values - values.mean()) ** 2).sum())
        import torch

        values = values.double()
        parts = torch.stack([values.new_tensor(values.numel()), values.sum(), (values**2).sum()])
        count, total, squares = self.sum(parts, MEANS)
        return Moments(count, total / count, (squares - total**2 / count).clamp(min=0))

    def variance(self, values: "Tensor") -> "Tensor":
        """The unbiased variance of all ranks' values together."""
        if self.size == 1:
            return values.var()
        count, _, squares = self.moments(values)
        return (squares / (count - 1)).to(values.dtype)

    def count_mean_and_deviation(self, values: "Tensor") -> "tuple[int | Tensor, Tensor, Tensor]":
        """How many values all ranks have together, their mean, and their unbiased standard deviation."""
        if self.size == 1:
            return values.numel(), values.mean(), values.std()
        count, mean, squares = self.moments(values)
        return count.to(values.dtype), mean.to(values.dtype), (squares / (count - 1)).sqrt().to(values.dtype)

    def sum_gradients(self, parameters: "Iterable[nn.Parameter]") -> None:
        """Puts the sum over ranks into each parameter's gradient: one collective for all of them."""
        if self.size == 1:
            return
        import torch

        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        total = self.sum(torch.cat([gradient.flatten() for gradient in gradients]), "the gradients")
        for gradient, part in zip(gradients, total.split([one.numel() for one in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def share_weights(self, network: "nn.Module") -> None:
        """Gives every rank the first one's weights: two machines' arithmetic may have begun them differently."""
        if self.size == 1:
            return
        from torch import distributed

        for tensor in network.state_dict().values():
            with self._together("the first weights"):
                distributed.broadcast(tensor, 0)

    def gather[Thing](self, thing: Thing, what: str, patience: float | None = None) -> list[Thing] | None:
        """What each rank has, in their order, for the first one; None for the others."""
        if self.size == 1:
            return [thing]
        from torch import distributed

        found: Any = [None] * self.size if self.first else None
        with self._together(what, patience):
            distributed.gather_object(thing, found)
        return found

    def from_first[Thing](self, thing: Thing, what: str, patience: float | None = None) -> Thing:
        """What the first rank has."""
        if self.size == 1:
            return thing
        from torch import distributed

        found = [thing]
        with self._together(what, patience):
            distributed.broadcast_object_list(found)
        return found[0]

    def agreed[Result](self, work: Callable[[], Result]) -> Result:
        """What `work` returns, once it has succeeded on every rank.

        Where it raises ScoutError all end together, and the first rank alone says why.
        """
        if self.size == 1:
            return work()
        result: Any = None
        mistake: str | None = None
        try:
            result = work()
        except SharedError:
            raise
        except ScoutError as error:
            mistake = str(error)
        mistakes = self.from_first(self.gather(mistake, "the start"), "the start")
        assert mistakes is not None
        found = {number: message for number, message in enumerate(mistakes) if message is not None}
        if found:
            number, message = next(iter(found.items()))
            alike = len(found) == self.size and len(set(found.values())) == 1
            raise SharedError(message if alike or number == 0 else f"rank {number}: {message}")
        return result

    @contextmanager
    def _together(self, what: str, patience: float | None = None) -> Iterator[None]:
        """Around a collective. Raises RankLost when another rank is gone."""
        assert self.link is not None, "the ranks have not met"
        with self.link.waiting(what, patience):
            try:
                yield
            except RuntimeError as error:  # gloo's and NCCL's
                reason = re.sub(r"^\[[^\]]*\] *", "", (str(error) or type(error).__name__).splitlines()[0])
                raise RankLost(self.link.loss(what, reason)) from None


MEANS = "the statistics of the advantages and returns"
ALONE = Ranks()
