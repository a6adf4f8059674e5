"""How sure the choice of layers is on the embedded model.

Run ``python -m benchmarks.locating``. For every seed, which draws other facts and other
noise: the layers that are chosen, and each layer's gap as a share of the largest effect
of restoring a state, which the rule compares with its threshold.
"""

import argparse
import time

import torch

from flwr_collabedit.data.known_facts import embedded_facts
from flwr_collabedit.locating.averages import TraceAverages
from flwr_collabedit.locating.causal_trace import trace_facts
from flwr_collabedit.locating.layer_choice import LEAST_SHARE, choose_layers
from flwr_collabedit.locating.trace_settings import TraceSettings
from flwr_collabedit.models.loading import load_language_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lm = load_language_model("embedded")
    print(f"{arguments.facts} facts a seed; threshold {LEAST_SHARE}")
    print("seed  layers       gap / largest effect, by layer           seconds")
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        started = time.perf_counter()
        settings = TraceSettings(seed=seed, last_only=True)
        traces = trace_facts(lm, embedded_facts(arguments.facts, seed=seed), settings)
        averages = TraceAverages.of(traces)
        seconds = time.perf_counter() - started
        largest = max(estimate.mean for estimate in averages.entering["nothing"])
        shares = "  ".join(f"{at.mean / largest:.4f}" for at in averages.gap["mlp"])
        layers = str(choose_layers(averages))
        print(f"{seed:4}  {layers:11}  {shares}  {seconds:7.1f}", flush=True)


if __name__ == "__main__":
    main()
