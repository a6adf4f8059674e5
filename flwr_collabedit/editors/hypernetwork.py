"""A network that turns the gradients of edits into better ones (MALMEN, MEND).

Tan, Zhang and Fu, "Massive Editing for Large Language Models via Meta Learning", ICLR
2024; Mitchell et al., "Fast Model Editing at Scale", ICLR 2022.
"""

import math
from collections import Counter

import torch
from torch import Tensor, nn

from flwr_collabedit.editors.hypernetwork_config import HypernetworkConfig

_LEAST_DEVIATION = 1e-7


class Hypernetwork(nn.Module):
    """Maps keys and gradients of every edited weight: ``(k~, g~) = H(k, g)``.

    Weights of one shape share a network of residual blocks; each weight has its own
    scales and shifts in it, its own input statistics, learning rate and ``lambda``.

    Where the published code differs: its input statistics are of all layers of a shape
    together, and its learning rate is a plain number, trained beside weights a thousand
    times as large. Here the logarithm of the rate is trained, so that it stays positive
    and moves by factors.

    Parameters
    ----------
    config : HypernetworkConfig
        Weights and sizes.
    seed : int
        Of the blocks' first factors. The second ones are 0: untrained, the network is
        the normaliser, and an edit a step down the gradient.
    """

    def __init__(self, config: HypernetworkConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        seen: Counter[tuple[int, int]] = Counter()
        self._place: dict[str, tuple[str, int, int]] = {}
        for order, (name, shape) in enumerate(config.weights.items()):
            self._place[name] = (_net_name(shape), seen[shape], order)
            seen[shape] += 1
        self.nets = nn.ModuleDict(
            {
                _net_name(shape): _ShapeNet(sum(shape), count, config, generator)
                for shape, count in seen.items()
            }
        )
        num_weights = len(config.weights)
        initial = math.log(config.initial_rate)
        self.log_rates = nn.Parameter(torch.full((num_weights,), initial))
        self.log_ridges = nn.Parameter(torch.zeros(num_weights))

    def forward(
        self, name: str, keys: Tensor, gradients: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return ``(k~, g~)`` of a weight's tokens.

        Parameters
        ----------
        name : str
            The weight's.
        keys, gradients : Tensor
            ``(d_key, token)`` and ``(d_value, token)``.

        Returns
        -------
        tuple of Tensor
            Of the same shapes, in the network's dtype.
        """
        net, index, _ = self._net(name)
        mapped: Tensor = net(_rows(keys, gradients).to(self.log_rates), index).T
        return mapped[: len(keys)], mapped[len(keys) :]

    def value_differences(self, name: str, keys: Tensor, gradients: Tensor) -> Tensor:
        """Return what the weight is to put out in addition at each key.

        ``D_j = -rate (k_j . k~_j) g~_j``, Tan et al., 2024: the change that a
        rank-one step along ``g~ k~^T`` would make at its own key.

        Returns
        -------
        Tensor
            ``(d_value, token)``, in the network's dtype.
        """
        mapped_keys, mapped_gradients = self(name, keys, gradients)
        products = (keys.to(mapped_keys) * mapped_keys).sum(0)
        differences: Tensor = -self.rate(name) * products * mapped_gradients
        return differences

    def rate(self, name: str) -> Tensor:
        """Return the weight's learning rate, a positive scalar."""
        return self.log_rates[self._place[name][2]].exp()

    def ridge(self, name: str) -> Tensor:
        """Return the weight's ``lambda``, a positive scalar."""
        return self.log_ridges[self._place[name][2]].exp()

    def observe(self, name: str, keys: Tensor, gradients: Tensor) -> None:
        """Take a weight's tokens into the statistics that inputs are normalised by."""
        net, index, _ = self._net(name)
        net.normalizer.update(_rows(keys, gradients), index)

    def _net(self, name: str) -> tuple["_ShapeNet", int, int]:
        net_name, index, order = self._place[name]
        net = self.nets[net_name]
        assert isinstance(net, _ShapeNet)
        return net, index, order


class _ShapeNet(nn.Module):
    def __init__(
        self,
        width: int,
        num_weights: int,
        config: HypernetworkConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.normalizer = RunningNormalizer(width, num_weights)
        self.blocks = nn.ModuleList(
            _LowRankBlock(width, config.rank, num_weights, generator)
            for _ in range(config.num_blocks)
        )

    def forward(self, rows: Tensor, index: int) -> Tensor:
        hidden: Tensor = self.normalizer(rows, index)
        for block in self.blocks:
            hidden = block(hidden, index)
        return hidden


class _LowRankBlock(nn.Module):
    """``h + scale max(0, B A h + b) + shift``, scale and shift by weight."""

    def __init__(
        self, width: int, rank: int, num_weights: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        first = torch.randn(rank, width, generator=generator) / math.sqrt(width)
        self.first = nn.Parameter(first)
        self.second = nn.Parameter(torch.zeros(width, rank))
        self.bias = nn.Parameter(torch.zeros(width))
        self.scales = nn.Parameter(torch.ones(num_weights, width))
        self.shifts = nn.Parameter(torch.zeros(num_weights, width))

    def forward(self, hidden: Tensor, index: int) -> Tensor:
        # Unlike relu's, the derivative of clamp is 1 at 0, where training starts.
        found = (hidden @ self.first.T @ self.second.T + self.bias).clamp(min=0)
        return hidden + self.scales[index] * found + self.shifts[index]


class RunningNormalizer(nn.Module):
    """Subtracts the mean of all tokens seen, and divides by their deviation.

    Mean and sum of squared differences are merged as by Chan, Golub and LeVeque, 1983,
    "Algorithms for computing the sample variance", The American Statistician 37.

    Parameters
    ----------
    width : int
        Of an input row.
    num_weights : int
        Weights with statistics of their own.
    """

    counts: Tensor
    means: Tensor
    squares: Tensor

    def __init__(self, width: int, num_weights: int) -> None:
        super().__init__()
        wide = torch.zeros(num_weights, width, dtype=torch.float64)
        self.register_buffer("counts", wide[:, 0].clone())
        self.register_buffer("means", wide.clone())
        self.register_buffer("squares", wide.clone())

    def update(self, rows: Tensor, index: int) -> None:
        """Take ``(token, width)`` rows of a weight in."""
        rows = rows.detach().to(self.means)
        if not len(rows):
            return
        before, added = float(self.counts[index]), len(rows)
        mean = rows.mean(0)
        gap = mean - self.means[index]
        self.squares[index] += (rows - mean).square().sum(0)
        self.squares[index] += gap.square() * (before * added / (before + added))
        self.means[index] += gap * (added / (before + added))
        self.counts[index] += added

    def forward(self, rows: Tensor, index: int) -> Tensor:
        """Return the rows normalised, in their dtype; as they are before any update."""
        count = float(self.counts[index])
        if count < 2:
            return rows
        deviation = (self.squares[index] / (count - 1)).sqrt() + _LEAST_DEVIATION
        shifted = rows - self.means[index].to(rows)
        return shifted / deviation.to(rows)


def _rows(keys: Tensor, gradients: Tensor) -> Tensor:
    return torch.cat([keys, gradients.to(keys)]).T


def _net_name(shape: tuple[int, int]) -> str:
    return "x".join(map(str, shape))
