"""Batched traces equal a trace that changes one thing at a time, for every family."""

import itertools
from contextlib import ExitStack

import pytest
import torch
from pico import FAMILIES, pico_language_model

from flwr_collabedit.data.known_facts import KnownFact
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.locating.causal_trace import FactTrace, trace_facts
from flwr_collabedit.locating.trace_settings import TraceSettings, windows
from flwr_collabedit.models.language_model import LanguageModel

FACTS = [
    KnownFact(
        fact_id=0, prompt="In Rome {} is in", subject="Angela Merkel", answer="Asia"
    ),
    KnownFact(fact_id=1, prompt="{} is in", subject="Norway", answer="Berlin"),
]
SETTINGS = TraceSettings(num_samples=2, window=2, seed=3)
# Block, MLP, attention: where the families keep them, read off their source.
MODULES = {
    "gpt2": ("transformer.h", "mlp", "attn"),
    "gptj": ("transformer.h", "mlp", "attn"),
    "gpt_neox": ("gpt_neox.layers", "mlp", "attention"),
    "phi": ("model.layers", "mlp", "self_attn"),
}
OTHERS = ("model.layers", "mlp", "self_attn")


class PlainTrace:
    """One row, one noise and one change of the forward at a time."""

    def __init__(self, lm: LanguageModel, fact: KnownFact, noise: torch.Tensor) -> None:
        self.lm, self.noise = lm, noise
        text = fact.prompt.replace("{}", fact.subject)
        coded = lm.tokenizer(text, return_offsets_mapping=True)
        start = text.index(fact.subject)
        stop = start + len(fact.subject)
        self.ids = coded["input_ids"]
        self.subject = [
            i
            for i, (a, b) in enumerate(coded["offset_mapping"])
            if a < stop and b > start
        ]
        answered = lm.tokenizer(f"{text} {fact.answer}")["input_ids"]
        assert answered[: len(self.ids)] == self.ids
        self.answer = answered[len(self.ids)]
        blocks, mlp, attention = MODULES.get(lm.architecture.family, OTHERS)
        self.names = {
            "state": [f"{blocks}.{i}" for i in range(lm.num_layers)],
            "mlp": [f"{blocks}.{i}.{mlp}" for i in range(lm.num_layers)],
            "attention": [f"{blocks}.{i}.{attention}" for i in range(lm.num_layers)],
        }
        self.clean = self._record(None)
        self.noisy = [self._record(one) for one in noise]

    def _record(self, noise: torch.Tensor | None) -> dict[str, torch.Tensor]:
        kept = {}
        self.run(noise, {}, kept)
        return kept

    def run(self, noise, put, kept=None) -> float:
        """Return the answer's probability with ``put[name, position]`` put in."""

        def embed(_, __, output):
            if noise is not None:
                output = output.clone()
                for index, position in enumerate(self.subject):
                    output[0, position] += noise[index]
            return output

        def change(name):
            def hook(_, __, output):
                hidden = (output[0] if isinstance(output, tuple) else output).clone()
                if kept is not None:
                    kept[name] = hidden.clone()
                for (module, position), value in put.items():
                    if module == name:
                        hidden[0, position] = value
                return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

            return hook

        model = self.lm.model
        with torch.no_grad(), ExitStack() as hooks:
            embedding = model.get_input_embeddings()
            hooks.callback(embedding.register_forward_hook(embed).remove)
            for name in itertools.chain(*self.names.values()):
                module = model.get_submodule(name)
                hooks.callback(module.register_forward_hook(change(name)).remove)
            logits = model(torch.tensor([self.ids])).logits[0, -1]
        return float(logits.double().softmax(-1)[self.answer])

    def mean(self, restored=(), frozen=(), spare=None) -> float:
        """Return the mean over noises; both are (name, position) pairs."""
        total = 0.0
        for noise, noisy in zip(self.noise, self.noisy, strict=True):
            if spare is not None:
                noise = noise.clone()
                noise[self.subject.index(spare)] = 0
            put = {(name, at): self.clean[name][0, at] for name, at in restored}
            put |= {(name, at): noisy[name][0, at] for name, at in frozen}
            total += self.run(noise, put)
        return total / len(self.noise)


def plain_noises(lm: LanguageModel, facts: list[KnownFact]) -> list[torch.Tensor]:
    """Return each fact's noise: 3 standard deviations, drawn fact after fact."""
    embed = lm.model.get_input_embeddings()
    subjects = []
    for fact in facts:
        plain = PlainTrace(lm, fact, torch.zeros(0))
        subjects.append(embed(torch.tensor([plain.ids[i] for i in plain.subject])))
    std = torch.cat([rows.flatten() for rows in subjects]).double().std()
    generator = torch.Generator().manual_seed(SETTINGS.seed)
    return [
        3 * float(std) * torch.randn((2, *rows.shape), generator=generator)
        for rows in subjects
    ]


def check(trace: FactTrace, plain: PlainTrace, has_attention: bool) -> None:
    """Compare every number of a trace with the plain one."""
    last, layers = plain.subject[-1], range(plain.lm.num_layers)
    parts = ["mlp", "attention"][: 1 + has_attention]
    close = {"abs": 2e-6, "rel": 1e-4}
    assert trace.positions == tuple(range(plain.subject[0], len(plain.ids)))
    assert trace.clean == pytest.approx(plain.run(None, {}), **close)
    assert trace.corrupted == pytest.approx(plain.mean(), **close)
    assert list(trace.restored) == ["state", *parts]
    assert list(trace.entering) == ["nothing", *parts]
    for kind, layer in itertools.product(trace.restored, layers):
        around = (
            [layer] if kind == "state" else [i for i in (layer - 1, layer) if i >= 0]
        )
        for column, at in enumerate(trace.positions):
            put = [(plain.names[kind][i], at) for i in around]
            assert float(trace.restored[kind][layer, column]) == pytest.approx(
                plain.mean(put), **close
            )
    for severed, layer in itertools.product(trace.entering, layers):
        frozen = [(name, last) for name in plain.names.get(severed, [])]
        put = [(plain.names["state"][layer - 1], last)] if layer else []
        assert float(trace.entering[severed][layer]) == pytest.approx(
            plain.mean(put, frozen, spare=None if layer else last), **close
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trace_is_that_of_one_change_at_a_time(family):
    lm = pico_language_model(family, num_layers=2)
    facts = FACTS if family == "gpt2" else FACTS[1:]

    traces = trace_facts(lm, facts, SETTINGS)

    noises = plain_noises(lm, facts)
    for trace, fact, noise in zip(traces, facts, noises, strict=True):
        assert trace.fact is fact
        check(trace, PlainTrace(lm, fact, noise), family != "gemma2")


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return pico_language_model("gpt2")


@pytest.fixture(scope="module")
def traces(lm) -> list[FactTrace]:
    return trace_facts(lm, FACTS, SETTINGS)


def test_restoring_all_that_the_answer_reads_is_the_clean_run(traces):
    for trace in traces:
        # The last block's output at the last token is all that is read.
        end = float(trace.restored["state"][-1, -1])
        assert end == pytest.approx(trace.clean, rel=1e-5)
        assert abs(trace.corrupted - trace.clean) > 1e-4
        # And what it put out earlier in the text is read by nobody.
        assert trace.restored["state"][-1, 0] == pytest.approx(trace.corrupted)


def test_a_restored_single_token_subject_is_the_clean_run(lm):
    fact = KnownFact(fact_id=0, prompt="{} is in", subject="a", answer="Asia")
    (trace,) = trace_facts(lm, [fact], SETTINGS)

    assert trace.prompt.subject_first == trace.prompt.subject_last
    assert trace.entering["nothing"][0] == pytest.approx(trace.clean, rel=1e-5)


def same(a: list[FactTrace], b: list[FactTrace], **how) -> bool:
    return all(
        torch.allclose(x.restored[kind], y.restored[kind], **how)
        for x, y in zip(a, b, strict=True)
        for kind in x.restored
    )


def test_noise_comes_from_the_seed_alone(lm, traces):
    again = trace_facts(lm, FACTS, SETTINGS)
    other = trace_facts(lm, FACTS, TraceSettings(num_samples=2, window=2, seed=4))

    assert same(traces, again, rtol=0, atol=0)
    assert not same(traces, other, rtol=1e-3)


def test_batches_change_nothing_but_rounding(lm, traces):
    small = TraceSettings(num_samples=2, window=2, seed=3, batch_size=7)

    assert same(traces, trace_facts(lm, FACTS, small), rtol=1e-4, atol=1e-8)


def test_the_last_token_alone_has_the_numbers_of_the_whole(lm, traces):
    short = TraceSettings(num_samples=2, window=2, seed=3, last_only=True)

    for whole, part in zip(traces, trace_facts(lm, FACTS, short), strict=True):
        column = whole.positions.index(whole.prompt.subject_last)
        assert part.positions == (whole.prompt.subject_last,)
        assert torch.allclose(
            part.restored["mlp"][:, 0], whole.restored["mlp"][:, column], rtol=1e-4
        )
        assert torch.allclose(part.entering["mlp"], whole.entering["mlp"], rtol=1e-4)


def test_the_model_is_not_touched(lm):
    before = {name: value.clone() for name, value in lm.model.named_parameters()}

    trace_facts(lm, FACTS[:1], SETTINGS)

    assert not any(module._forward_hooks for module in lm.model.modules())
    for name, value in lm.model.named_parameters():
        assert torch.equal(value, before[name])


def test_half_precision_models_are_traced_with_float32_noise():
    lm = pico_language_model("llama", dtype=torch.bfloat16)
    (trace,) = trace_facts(lm, FACTS[1:], SETTINGS)

    assert trace.restored["state"].dtype == torch.float64
    assert trace.clean != trace.corrupted


def test_progress_counts_facts(lm):
    seen = []
    trace_facts(lm, FACTS, SETTINGS, progress=lambda *done: seen.append(done))

    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("num_layers", "window", "expected"),
    [
        (5, 0, [[0], [1], [2], [3], [4]]),
        (4, 3, [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3]]),
        (4, 2, [[0], [0, 1], [1, 2], [2, 3]]),
    ],
)
def test_windows_end_at_the_models_ends(num_layers, window, expected):
    found = windows(num_layers, TraceSettings(window=window))

    assert [list(one) for one in found] == expected


def test_windows_of_gpt2_xl_are_those_of_rome():
    by_layer = windows(48, TraceSettings())

    assert list(by_layer[20]) == list(range(15, 25))


@pytest.mark.parametrize(
    ("name", "value"),
    [("noise", 0), ("noise", float("nan")), ("num_samples", 0), ("window", -1)],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigurationError, match=f"Expected {name} .*found {value!r}"):
        TraceSettings(**{name: value})
