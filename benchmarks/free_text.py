"""What free text says of edits that hold, and of a model that they break.

``python -m benchmarks.free_text`` edits the embedded model; ``docs/measures.md`` has
what it prints.
"""

import time

import torch
from rich.console import Console
from rich.table import Table

from flwr_collabedit.data.fact_world import embedded_cases, embedded_corpus
from flwr_collabedit.data.reference_texts import embedded_reference_texts
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import generate_contexts
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.evaluation.case_score import sums
from flwr_collabedit.evaluation.evaluate import evaluate_cases
from flwr_collabedit.evaluation.metrics import summarize
from flwr_collabedit.evaluation.reference_score import ReferenceScore
from flwr_collabedit.evaluation.text_quality import TextQuality, write_texts
from flwr_collabedit.models.loading import EMBEDDED_MODEL, load_language_model
from flwr_collabedit.models.weights import applied_deltas

NUM_EDITS, NUM_TOKENS = 200, (8, 40)
FACTORS = (0, 1, 2, 4, 8)
SHOWN = {"ES": "ES", "EA": "EA", "NA": "NA", "generated_efficacy": "GE"}


def main() -> None:
    torch.set_num_threads(2)
    lm, cases = load_language_model("embedded"), embedded_cases(NUM_EDITS)
    config = MemitConfig.from_published(EMBEDDED_MODEL / "edit.json")
    moments = estimate_second_moments(
        lm, config.layers, embedded_corpus(), num_samples=6000, corpus_name="embedded"
    )
    editor = MemitEditor(lm, config, generate_contexts(lm), moments)
    deltas = editor.edit([case.request for case in cases]).deltas
    reference = ReferenceScore(embedded_reference_texts())
    table = Table(title=f"{NUM_EDITS} edits, their deltas times a factor")
    for name in ("factor", *SHOWN.values(), "s"):
        table.add_column(name, justify="right")
    for number in NUM_TOKENS:
        for name in (f"ENT, {number} tokens", "RS", "s"):
            table.add_column(name, justify="right")
    for factor in FACTORS:
        with applied_deltas(lm, {name: factor * d for name, d in deltas.items()}):
            began = time.perf_counter()
            scores = summarize(evaluate_cases(lm, cases).sums)
            cells = [f"{scores[key]:.1f}" for key in SHOWN]
            cells.append(f"{time.perf_counter() - began:.1f}")
            for number in NUM_TOKENS:
                began = time.perf_counter()
                found = write_texts(lm, cases, TextQuality(number, reference=reference))
                texts = summarize(sums(found))
                cells += [f"{texts[key]:.1f}" for key in ("fluency", "consistency")]
                cells.append(f"{time.perf_counter() - began:.1f}")
        table.add_row(str(factor), *cells)
        print(f"factor {factor}: {found[0].texts[0]}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
