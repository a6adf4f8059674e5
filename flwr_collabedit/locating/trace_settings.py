"""How facts are corrupted and restored in a causal trace.

Meng et al. "Locating and Editing Factual Associations in GPT", NeurIPS 2022, section
2.1; numbers without another source are those of its code.
"""

from dataclasses import dataclass

from flwr_collabedit.errors import ConfigurationError

# ROME restores the modules of 10 layers at once in GPT-2 XL, which has 48.
_WINDOW_SHARE = 10 / 48


@dataclass(frozen=True)
class TraceSettings:
    """How facts are corrupted and restored.

    Attributes
    ----------
    noise : float
        Standard deviation of the noise, in units of that of the subjects' embeddings,
        > 0.
    num_samples : int
        Draws of noise for each fact, >= 1.
    window : int
        Neighbouring layers whose MLP (or attention) is restored at once, >= 1; 0 for
        the published share of the depth, 10 of 48.
    last_only : bool
        Restore at the subject's last token only, which is what a choice of layers
        needs, several times as fast.
    seed : int
        Decides the noise.
    batch_size : int
        Rows per forward, >= 1; changes the result by rounding only.
    """

    noise: float = 3.0
    num_samples: int = 10
    window: int = 0
    last_only: bool = False
    seed: int = 0
    batch_size: int = 512

    def __post_init__(self) -> None:
        """Raise ``ConfigurationError`` for a value out of range."""
        least = {"noise": 0.0, "num_samples": 1, "window": 0, "batch_size": 1}
        for name, value in least.items():
            found = getattr(self, name)
            if found < value or (name == "noise" and not 0 < found < float("inf")):
                wanted = "a positive number" if name == "noise" else f">= {value}"
                raise ConfigurationError(f"Expected {name} {wanted}; found {found!r}.")


def window_size(num_layers: int, settings: TraceSettings) -> int:
    """Return how many layers' modules are restored at once."""
    return settings.window or max(1, round(_WINDOW_SHARE * num_layers))


def windows(num_layers: int, settings: TraceSettings) -> list[range]:
    """Return the layers around each layer, fewer at the ends; as in ROME's code."""
    size = window_size(num_layers, settings)
    return [
        range(max(0, layer - size // 2), min(num_layers, layer + (size + 1) // 2))
        for layer in range(num_layers)
    ]
