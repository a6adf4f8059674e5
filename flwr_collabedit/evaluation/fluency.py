"""How varied a text is: the weighted entropy of its pairs and triples of words.

Meng et al. "Locating and Editing Factual Associations in GPT", NeurIPS 2022, and its
    code: a model that an edit has broken repeats itself, which lowers the entropy.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

# Order of the n-grams and its weight; the result is the mean of the weighted entropies.
_WEIGHTS = {2: 2 / 3, 3: 4 / 3}
_WORD = re.compile(r"\w+|[^\w\s]")


def fluency(text: str) -> float:
    """Return ``(2/3 H_2 + 4/3 H_3) / 2`` of a text's words, in bits.

    The weights and the mean over the two are those of the published code; tables show
    100 times the mean over texts. It is at most ``log2`` of the number of words, so
    only texts of about the same length compare.

    Notes
    -----
    Low means repetition. High does not mean good: words drawn at random have the most.

    Examples
    --------
    >>> fluency("a a a a a")
    0.0
    >>> round(fluency("a b c d e"), 4)  # H_2 = log2(4), H_3 = log2(3)
    1.7233
    """
    words = split_words(text)
    weighted = [weight * ngram_entropy(words, n) for n, weight in _WEIGHTS.items()]
    return sum(weighted) / len(weighted)


def ngram_entropy(words: Sequence[str], n: int) -> float:
    """Return ``-sum_g f(g) log2 f(g)`` over the n-grams ``g``, in bits.

    ``f`` is the share of ``g`` among the text's n-grams. A text of fewer than ``n``
    words has none and counts as 0, like endless repetition: a model that writes
    nothing must not fare better than one that writes the same again and again.

    Examples
    --------
    >>> ngram_entropy(["a", "b", "a", "b"], 2)  # ab twice, ba once
    0.9182958340544896
    """
    grams = Counter(zip(*(words[start:] for start in range(n)), strict=False))
    total = grams.total()
    return math.fsum(
        count / total * math.log2(total / count) for count in grams.values()
    )


def split_words(text: str) -> list[str]:
    """Return the words and, each on its own, the other signs of a text.

    Case matters. The published code uses NLTK's tokenizer, which also splits
    contractions (``do n't``) and keeps abbreviations (``U.S.``) whole.

    Examples
    --------
    >>> split_words("Paris, in France.")
    ['Paris', ',', 'in', 'France', '.']
    """
    return _WORD.findall(text)
