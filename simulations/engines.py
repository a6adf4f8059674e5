"""What runs a simulation's clients."""

from enum import StrEnum


class Engine(StrEnum):
    """What runs the clients."""

    RAY = "ray"
    IN_PROCESS = "in-process"
