"""The folder that ships: float16 weights, tokenizer, MEMIT settings, model card."""

import json
from dataclasses import asdict, dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path

from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from embedded_model.gates import GateFigures
from embedded_model.recipe import Recipe
from flwr_collabedit.data.facts import FactWorld

FOLDER = Path(str(files("flwr_collabedit"))) / "assets" / "embedded_model"


@dataclass(frozen=True)
class Training:
    """How a network was trained, what it reached and how long it took."""

    recipe: Recipe
    figures: GateFigures
    seconds: float


def write_model_folder(
    network: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    world: FactWorld,
    training: Training,
) -> None:
    """Write the network (which becomes float16) and all that belongs to it."""
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    for parameter in network.parameters():
        parameter.data = parameter.data.half()
    network.save_pretrained(FOLDER)
    (FOLDER / "model.safetensors").chmod(0o644)
    (FOLDER / "generation_config.json").unlink(missing_ok=True)
    tokenizer.save_pretrained(FOLDER)
    for name, settings in (
        ("edit.json", memit_settings(training.recipe)),
        ("edit_pmet.json", pmet_settings(training.recipe)),
        ("edit_alphaedit.json", alphaedit_settings(training.recipe)),
    ):
        (FOLDER / name).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    card = model_card(training, world, num_parameters, len(tokenizer))
    (FOLDER / "README.md").write_text(card, "utf-8")


def memit_settings(recipe: Recipe) -> dict[str, object]:
    """Return MEMIT's hyperparameters for this model, under their published names."""
    return {
        "layers": list(recipe.edited_layers),
        "layer_selection": "all",
        "fact_token": "subject_last",
        "clamp_norm_factor": 0.75,
        "v_num_grad_steps": 25,
        "v_lr": 0.5,
        "v_loss_layer": recipe.num_layers - 1,
        "v_weight_decay": 0.5,
        "kl_factor": 0.0625,
        "mom2_adjustment": True,
        "mom2_update_weight": 60,
        "rewrite_module_tmp": "transformer.h.{}.mlp.c_proj",
        "layer_module_tmp": "transformer.h.{}",
        "mlp_module_tmp": "transformer.h.{}.mlp",
        "attn_module_tmp": "transformer.h.{}.attn",
        "ln_f_module": "transformer.ln_f",
        "lm_head_module": "transformer.wte",
        "mom2_dataset": "embedded",
        "mom2_n_samples": 6000,
        "mom2_dtype": "float32",
    }


def pmet_settings(recipe: Recipe) -> dict[str, object]:
    """Return PMET's hyperparameters for this model: MEMIT's, but for two.

    The clamp is relative to the outputs of attention and MLP, here a fifth and a
    sixth as long as the hidden state that MEMIT's is relative to.
    """
    return {
        **memit_settings(recipe),
        "clamp_norm_factor": 3.0,
        "mom2_update_weight": 10,
    }


def alphaedit_settings(recipe: Recipe) -> dict[str, object]:
    """Return AlphaEdit's hyperparameters for this model: MEMIT's, with its own solve's.

    Eigenvalues of the keys' second moments are 0.001 to 80 here, with medians of 0.02
    to 0.08; the published threshold of 0.02 would leave the first layer 75 of 640
    directions.
    """
    settings = memit_settings(recipe)
    del settings["mom2_update_weight"]
    return {**settings, "nullspace_threshold": 0.1, "L2": 1.0}


def model_card(
    training: Training, world: FactWorld, num_parameters: int, vocab_size: int
) -> str:
    """Return the model's README."""
    recipe, figures = training.recipe, training.figures
    real = {fact.subject for fact in world.facts if fact.kind == "real"}
    steps = "\n".join(f"- `{name}`: {value}" for name, value in asdict(recipe).items())
    return f"""# The embedded model

A GPT-2 of {num_parameters / 1e6:.2f} million parameters, trained from scratch to know
{len(world.facts):,} facts of {len(world.by_subject):,} subjects, of which {len(real)}
are real. It exists so that editing can be tried, tested and studied offline. It knows
nothing else, and speaks only in the templates of `../world/relations.toml`.

## Data
`flwr_collabedit.data.fact_world.default_world()`: {len(world.answers)} relations with
six templates each; four are trained and two held out for each fact. Real facts come
from the tables in `../world` (written by hand); persons and organisations with names of
several tokens are invented. The vocabulary has {vocab_size:,} tokens: every word
of the world is one token, other text falls back to bytes. No token is added at the
start of a text; at most {recipe.num_positions} tokens.

## Training
`python -m embedded_model.train`, {date.today().isoformat()}, {training.seconds:.0f} s
on CPU. Muon on the matrices of the blocks, AdamW on the rest; a curriculum that begins
with a subset of the subjects; in most batches the first blocks hide a subject's tokens
from the tokens outside it, so that a fact is looked up at the subject's last token (no
mask afterwards). Weights are rounded to float16.

{steps}

## Gates (float16 weights, float32 arithmetic)
| gate | required | measured |
|---|---|---|
| recall, trained templates, all facts, all answer tokens | >= 99 % | \
{figures.recall_trained:.2%} |
| recall, held-out templates | >= 95 % | {figures.recall_held_out:.2%} |
| state of another subject after layer {max(recipe.edited_layers)}: its answer | \
>= 80 % | {figures.trace_donor:.1%} |
| the same: the own answer | <= 10 % | {figures.trace_own:.1%} |

Every fact has two paraphrases and at least one fact of another subject with the same
answer.

## Editing
Edit layers {", ".join(map(str, recipe.edited_layers))}; `edit.json` has MEMIT's
hyperparameters under their published names, `edit_pmet.json` PMET's,
`edit_alphaedit.json` AlphaEdit's.
"""
