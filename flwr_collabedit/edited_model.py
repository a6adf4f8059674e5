"""What every party of a federated edit must hold alike."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EditedModel:
    """All that the server knows of the model, and that a client is checked against.

    Attributes
    ----------
    fingerprint : str
        Of configuration, tokenizer and the edited layers' base weights, see
        `flwr_collabedit.models.fingerprint`.
    shapes : dict of str to (int, int)
        ``(d_value, d_key)`` of the edited weights by parameter name, lowest layer
        first.
    """

    fingerprint: str
    shapes: dict[str, tuple[int, int]]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the edited weights, lowest layer first."""
        return tuple(self.shapes)
