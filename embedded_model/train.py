"""Train the embedded model, check it and write it into the package.

Run ``python -m embedded_model.train``: minutes on two idle CPU cores. A model that
fails a gate is not written. Where page faults are slow (virtual machines), set
``MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592``: the memory of
one step is then kept for the next, which was ten times as fast.
"""

import logging
import time
from dataclasses import asdict

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from embedded_model.batches import Batch, BatchStream, tokenize_facts
from embedded_model.gates import GateFigures, measure_gates
from embedded_model.model_folder import Training, write_model_folder
from embedded_model.muon import Float32Muon
from embedded_model.network import forward_logits, new_network, subject_masks
from embedded_model.recipe import Recipe
from embedded_model.tokenizer import build_tokenizer
from flwr_collabedit.data.fact_world import default_world
from flwr_collabedit.data.facts import FactWorld

logger = logging.getLogger(__name__)


class GateError(RuntimeError):
    """A trained model that must not be shipped."""


def train(
    recipe: Recipe, world: FactWorld, tokenizer: PreTrainedTokenizerFast
) -> GPT2LMHeadModel:
    """Return the network trained on every trained statement of the world."""
    network = new_network(recipe, len(tokenizer))
    optimizers = _optimizers(network, recipe)
    warm_facts = [
        fact
        for facts in list(world.by_subject.values())[:: recipe.warm_stride]
        for fact in facts
    ]
    warm, full = (
        BatchStream(
            tokenize_facts(tokenizer, facts),
            num_tokens=recipe.num_tokens,
            other_weight=recipe.other_weight,
            seed=recipe.seed,
        )
        for facts in (warm_facts, world.facts)
    )
    for step in range(recipe.num_steps):
        stream = warm if step < recipe.num_warm_steps else full
        loss = _step(network, optimizers, stream.batch(step), step, recipe)
        if step % 50 == 49:
            logger.info("step %d of %d: loss %.3f", step + 1, recipe.num_steps, loss)
    network.train(False)
    return network


def _optimizers(
    network: GPT2LMHeadModel, recipe: Recipe
) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the blocks and AdamW for everything else."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        is_matrix = ".h." in name and parameter.ndim == 2
        (matrices if is_matrix else others).append(parameter)
    return [
        Float32Muon(
            matrices,
            lr=recipe.matrix_rate,
            momentum=0.95,
            weight_decay=recipe.weight_decay,
        ),
        torch.optim.AdamW(
            others,
            lr=recipe.other_rate,
            betas=(0.9, 0.98),
            weight_decay=recipe.weight_decay,
            fused=True,
        ),
    ]


def _step(
    network: GPT2LMHeadModel,
    optimizers: list[torch.optim.Optimizer],
    batch: Batch,
    step: int,
    recipe: Recipe,
) -> float:
    for optimizer, peak in zip(
        optimizers, (recipe.matrix_rate, recipe.other_rate), strict=True
    ):
        optimizer.param_groups[0]["lr"] = peak * _rate_factor(step, recipe.num_steps)
    is_open = step % recipe.open_every == recipe.open_every - 1
    masks = None if is_open else subject_masks(batch.subject_number[:, :-1])
    num_early = max(recipe.edited_layers) + 1
    logits = forward_logits(network, batch.ids[:, :-1], masks, num_early)
    loss = _weighted_loss(logits, batch)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def _rate_factor(step: int, num_steps: int) -> float:
    """Return a short ramp, 1 for 40 % of the steps, then a line down to 0.02."""
    ramp = min(1.0, (step + 1) / 60)
    return ramp * min(1.0, max(0.02, (1 - step / num_steps) / 0.6))


def _weighted_loss(logits: Tensor, batch: Batch) -> Tensor:
    weight = batch.loss_weight[:, 1:]
    losses = cross_entropy(logits.transpose(1, 2), batch.ids[:, 1:], reduction="none")
    return (losses * weight).sum() / weight.sum()


def round_to_half(network: GPT2LMHeadModel) -> None:
    """Round the weights to what float16 can hold; compute stays in float32."""
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float()


def main() -> None:
    """Train with the default recipe, check every gate and write the model folder."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_flush_denormal(True)
    torch.set_num_threads(2)
    recipe, world = Recipe(), default_world()
    tokenizer = build_tokenizer(world, max_length=recipe.num_positions)
    started = time.perf_counter()
    network = train(recipe, world, tokenizer)
    round_to_half(network)
    seconds = time.perf_counter() - started
    figures = measure_gates(
        network, tokenizer, world, last_edited_layer=max(recipe.edited_layers)
    )
    logger.info("trained in %.0f s: %s", seconds, asdict(figures))
    _check(figures, world)
    write_model_folder(network, tokenizer, world, Training(recipe, figures, seconds))


def _check(figures: GateFigures, world: FactWorld) -> None:
    failures = figures.failures()
    failures += [
        f"{fact.subject}, {fact.relation} has paraphrases and a neighborhood"
        for fact in world.facts
        if not (fact.held_out and world.neighbors(fact))
    ]
    if failures:
        raise GateError(f"Not written; expected: {'; '.join(failures[:5])}.")


if __name__ == "__main__":
    main()
