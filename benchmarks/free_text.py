"""What free text says of edits that hold, and of a model that they break.

``python -m benchmarks.free_text`` edits the embedded model; ``docs/measures.md`` has
what it prints.
"""

import time

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

NUM_EDITS, NUM_TOKENS = 200, 40
FACTORS = (0, 1, 2, 4, 8)
SHOWN = {
    **{"ES": "ES", "EA": "EA", "NA": "NA", "generated_efficacy": "GE"},
    **{"fluency": "ENT", "consistency": "RS"},
}


def main() -> None:
    lm, cases = load_language_model("embedded"), embedded_cases(NUM_EDITS)
    config = MemitConfig.from_published(EMBEDDED_MODEL / "edit.json")
    moments = estimate_second_moments(
        lm, config.layers, embedded_corpus(), num_samples=6000, corpus_name="embedded"
    )
    editor = MemitEditor(lm, config, generate_contexts(lm), moments)
    deltas = editor.edit([case.request for case in cases]).deltas
    quality = TextQuality(
        NUM_TOKENS, reference=ReferenceScore(embedded_reference_texts())
    )
    print(f"{NUM_EDITS} edits, their deltas times a factor; {NUM_TOKENS} tokens a text")
    print(
        " ".join(name.rjust(6) for name in ("factor", *SHOWN.values(), "s", "s text"))
    )
    for factor in FACTORS:
        with applied_deltas(lm, {name: factor * d for name, d in deltas.items()}):
            began = time.perf_counter()
            plain = evaluate_cases(lm, cases)
            plain_s = time.perf_counter() - began
            texts = write_texts(lm, cases, quality)
            texts_s = time.perf_counter() - began - plain_s
        found = summarize(plain.sums + sums(texts))
        figures = [found[key] or 0.0 for key in SHOWN]
        numbers = (factor, *figures, plain_s, texts_s)
        print(" ".join(f"{number:6.1f}" for number in numbers))
        print(f"       {texts[0].texts[0]}", flush=True)


if __name__ == "__main__":
    main()
