"""A server in a process of its own, to be killed: ``resume_worker.py FOLDER SECONDS``.

Every reply takes so many seconds, so that there is time to. The tests and the project
must be on PYTHONPATH.
"""

import sys
import time
from pathlib import Path

import torch
from long_runs import NUM_ROUNDS, grid_of, make


def main(folder: str, seconds: str) -> None:
    torch.set_num_threads(1)

    def late(index, reply):
        time.sleep(float(seconds))
        return reply

    grid = grid_of("conflicts", tamper=late)
    make("conflicts", Path(folder)).start(grid, num_rounds=NUM_ROUNDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
