"""Run functions for a cell's process, without a model or torch: it starts fast."""

import json
import os
import signal
import subprocess
import time

from simulations.settings import ExperimentSettings


def evaluation(score: float) -> dict[str, float]:
    names = ("Score", "accuracy_score", "ES", "PS", "NS", "EA", "PA", "NA", "retention")
    return dict.fromkeys(names, score)


def summary(settings: ExperimentSettings, score: float = 50.0) -> dict:
    rounds = [
        {
            "server_round": number,
            "evaluation": evaluation(score),
            "weight_norms": {"l1/layer.0": 10.0 * (1 + number)},
            "upload_bytes": 100,
            "num_clients": 1,
        }
        for number in range(1, settings.num_rounds + 1)
    ]
    pooled = {"pooled": evaluation(score + 1)} if settings.pooled_reference else {}
    return {
        "rounds": rounds,
        "scores": {"before": evaluation(1.0), **pooled},
        "gap_to_pooled": {"layer.0": 1e-7, "layer.1": 3e-7} if pooled else {},
        "upload_bytes_per_client": 10 * settings.num_edits,
        "seconds": 1.0,
        "seconds_pooled": 0.5,
        "settings": settings.to_run_config(),
    }


def succeed(settings: ExperimentSettings) -> None:
    score = 50.0 + settings.num_edits + settings.seed
    text = json.dumps(summary(settings, score))
    (settings.folder / "summary.json").write_text(text)
    with (settings.folder / "runs").open("a") as file:
        file.write("run\n")


def fail_with_seed_one(settings: ExperimentSettings) -> None:
    if settings.seed == 1:
        os.write(1, b"some output\n")
        raise ValueError("seed 1 cannot be run")
    succeed(settings)


def die_with_seed_one(settings: ExperimentSettings) -> None:
    if settings.seed == 1:
        os.write(1, b"last words\n")
        os.kill(os.getpid(), signal.SIGKILL)
    succeed(settings)


class _DiesWhenRead:
    """Ends the process that unpickles it, before its output is redirected."""

    def __reduce__(self):
        return os._exit, (3,)

    def __call__(self, settings: ExperimentSettings) -> None:
        raise AssertionError("it cannot be read")


die_at_once = _DiesWhenRead()


def end_without_results(settings: ExperimentSettings) -> None:
    os.write(2, b"the server stopped\n")


def hang_with_seed_one(settings: ExperimentSettings) -> None:
    if settings.seed == 1:
        child = subprocess.Popen(["sleep", "600"])
        (settings.folder / "pids").write_text(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    succeed(settings)
