"""How near generated text is to what is known of the new answer: TF-IDF cosine.

Meng et al. "Locating and Editing Factual Associations in GPT", NeurIPS 2022: a model
    that was told that someone speaks English should go on about them as texts about
    speakers of English do.
"""

from collections.abc import Sequence

from flwr_collabedit.data.reference_texts import ReferenceTexts
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.errors import RequestFormatError

try:
    from sklearn.feature_extraction.text import TfidfVectorizer
except ImportError as error:
    raise ImportError(
        "The reference score needs scikit-learn: install it by pip install "
        "'flwr-collabedit[simulation]'."
    ) from error


class ReferenceScore:
    """Scores texts against the reference texts of a case's new target.

    Words and their inverse document frequencies are those of all reference texts
    together: parties whose figures are to be added up must hold the same ones. (The
    published code brings its own, from a corpus of its authors.)

    Parameters
    ----------
    references : ReferenceTexts
        At least one text in all.

    Raises
    ------
    RequestFormatError
        If no reference text has a word.
    """

    def __init__(self, references: ReferenceTexts) -> None:
        self._references = references
        self._vectorizer = TfidfVectorizer()
        try:
            self._vectorizer.fit(references.texts())
        except ValueError as error:  # scikit-learn's for an empty vocabulary
            raise RequestFormatError(
                f"Expected reference texts with words of two letters or more, found "
                f"none ({error})."
            ) from error

    def of(self, case: EvaluationCase, texts: Sequence[str]) -> float | None:
        """Return the cosine of the texts with the case's references, in [0, 1].

        Both sides are joined to one document. 0 if no word of the texts is in any
        reference; ``None`` if the case has no reference.
        """
        references = self._references.of(case)
        if not references:
            return None
        written, known = self._vectorizer.transform(
            [" ".join(texts), " ".join(references)]
        )
        # The rows have length 1, or 0.
        return float(written.multiply(known).sum())
