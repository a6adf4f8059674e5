"""The accelerator benchmark on the CPU: its counts against torch's, and its output."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPTJConfig
from typer.testing import CliRunner

from benchmarks import gpu
from benchmarks.gpu_limits import DeviceClock, Limits
from benchmarks.gpu_work import (
    Work,
    measure_work,
    second_moment_work,
    solve_work,
    targets_work,
)
from benchmarks.target_settings import (
    CONTEXTS,
    SIZES,
    Size,
    random_model,
    trained_tokenizer,
)
from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.least_squares import solve_update
from flwr_collabedit.data.fact_world import embedded_cases
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.editors.layer_passes import measure
from flwr_collabedit.editors.targets import optimize_targets

LAYERS = SIZES["tiny"].layers
CONFIG = MemitConfig(layers=LAYERS, num_gradient_steps=3, stop_loss=0.0)


@pytest.fixture(scope="module")
def requests():
    return [case.request for case in embedded_cases(6)]


@pytest.fixture(scope="module")
def lm(requests):
    return random_model("tiny", trained_tokenizer(requests), "cpu")


def counted(function) -> float:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def test_the_floor_of_targets_is_below_what_torch_counts_and_near_it(lm, requests):
    work = targets_work(lm, requests, CONFIG, CONTEXTS)

    done = counted(lambda: optimize_targets(lm, requests, CONFIG, CONTEXTS))

    assert 0.5 * done < work.flop < done


def test_every_batch_reads_the_upper_weights_and_the_head_in_every_pass(lm, requests):
    one = targets_work(lm, requests, CONFIG, CONTEXTS)
    three = targets_work(
        lm, requests, CONFIG.model_copy(update={"edits_per_batch": 2}), CONTEXTS
    )

    # 12 d^2 for the block above layer 2, d times the vocabulary; 3 + 2 passes.
    assert one.num_bytes == 5 * 4 * (12 * 64**2 + 64 * 3000)
    assert three == Work(one.flop, 0.0, 3 * one.num_bytes)


def test_the_floor_of_keys_and_residuals_is_near_what_torch_counts(lm, requests):
    work = measure_work(lm, requests, CONFIG, CONTEXTS)
    z = torch.zeros(len(requests), 64)

    done = counted(
        lambda: [
            measure(lm, [layer], requests, z, CONTEXTS, CONFIG) for layer in LAYERS
        ]
    )

    # Rows of one batch are padded.
    assert 0.5 * done < work.flop < done


def test_second_moments_are_counted_token_by_token(lm, requests):
    text = " ".join(request.subject for request in requests)
    tokens = len(lm.tokenizer(text)["input_ids"])

    done = counted(
        lambda: estimate_second_moments(
            lm, LAYERS, [text] * 4, num_samples=4, corpus_name="x", rows_per_batch=2
        )
    )

    work = second_moment_work(lm, LAYERS, 4 * tokens, 2)
    assert work.flop64 == 2 * 4 * tokens * 256**2 * 2
    assert work.flop == done  # torch does not count sums in place


def test_the_solve_is_counted_with_its_factor():
    keys, residuals = torch.randn(30, 4).double(), torch.randn(5, 4).double()

    sums = counted(lambda: EditStatistics.from_pairs(keys, residuals))
    work = solve_work(30, 5, 4, num_layers=2)

    # Cholesky: d^3 / 3; two triangular solves of 5 right sides: d^2 each.
    assert work.flop64 == pytest.approx(2 * (sums + 30**3 / 3 + 2 * 5 * 30**2))
    assert work.flop == 0
    solve_update(EditStatistics.from_pairs(keys, residuals), torch.eye(30).double())


def test_shares_add_the_time_of_both_precisions():
    limits = Limits(bytes_per_s=10.0, flop_per_s=100.0, flop64_per_s=50.0)

    found = gpu.shares(Work(flop=100.0, flop64=100.0, num_bytes=5.0), 6.0, limits)

    assert found == (pytest.approx(0.5), pytest.approx(1 / 12))


def test_a_phase_that_fails_adds_no_time():
    clock = DeviceClock(torch.device("cpu"))

    with pytest.raises(KeyError), clock.phase("broken"):
        raise KeyError
    with clock.phase("whole"):
        pass

    assert list(clock.seconds) == ["whole"]
    assert clock.peaks == {}


@pytest.fixture
def small_gptj(monkeypatch):
    sizes = {"n_layer": 4, "n_embd": 64, "n_head": 4, "rotary_dim": 8}
    sizes |= {"vocab_size": 3000, "n_positions": 256}
    small = Size(GPTJConfig(**sizes), (0, 1), torch.bfloat16)
    monkeypatch.setitem(SIZES, "gpt-j", small)


@pytest.mark.parametrize("size", ["tiny", "gpt-j"])
def test_the_benchmark_runs_through_all_phases(size, small_gptj, tmp_path):
    rows = run(tmp_path, "--model", size)

    phases = {row["phase"]: row for row in rows if "phase" in row}
    assert set(phases) == {
        *("second-moment", "targets", "measure", "solve", "all"),
        *("plain targets", "plain keys"),
    }
    for name in ("second-moment", "targets", "measure", "solve"):
        assert phases[name]["seconds"] > 0
        assert 0 < phases[name]["of_rate"] < 1.5
    assert phases["all"]["edits_per_s"] > 0


def test_targets_that_do_not_fit_are_made_in_smaller_batches(tmp_path, monkeypatch):
    tried = []

    def made(lm, requests, config, contexts):
        tried.append(config.edits_per_batch)
        if len(requests) > 2 and config.edits_per_batch > 1:
            raise torch.OutOfMemoryError
        return optimize_targets(lm, requests, config, contexts)

    monkeypatch.setattr(gpu, "optimize_targets", made)

    rows = run(tmp_path, "--model", "tiny", "--plain-edits", "0")

    assert tried == [4, 4, 2, 1]
    assert [row["note"] for row in rows if row.get("phase") == "targets"] == [
        "batches of 1, 2 steps"
    ]


def test_without_a_gpu_the_benchmark_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is one")

    with pytest.raises(SystemExit, match="Expected a CUDA device"):
        gpu.main()


def run(folder, *options):
    import typer

    app = typer.Typer()
    app.command()(gpu.main)
    output = folder / "figures.jsonl"
    arguments = [*options, "--device", "cpu", "--edits", "4", "--batch", "4"]
    arguments += ["--steps", "2", "--output", str(output)]
    if "--plain-edits" not in options:
        arguments += ["--plain-edits", "1"]
    found = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return [json.loads(line) for line in output.read_text().splitlines()]
