"""One spelling for texts that name the same thing, so that equal facts compare equal.

It is meant for comparison, never for prompts: a model reads the text as it was given.
"""

import unicodedata

from flwr_collabedit.data.requests import EditRequest

_OUTER = " .,;:!?\"'`«»"
# The curly ones, single and double.
_QUOTES = str.maketrans("\u2018\u2019\u201a\u201b\u201c\u201d\u201e", "''''" + '"' * 3)


def normal_form(text: str) -> str:
    """Return the text without the differences that do not make another name.

    In this order: invisible format characters are dropped; compatibility forms (NFKC)
    and case are folded; every dash becomes a hyphen and every curly quotation mark a
    straight one; white space becomes single spaces; sentence punctuation and quotation
    marks around the text go (``Apple Inc.`` is ``apple inc``). Where nothing would be
    left (``!!!``), they stay.

    Articles stay: which words they are depends on the language, and ``The Who`` is not
    ``Who``. Accents stay, and all other signs: ``C++`` is not ``C``, nor ``-5`` ``5``.

    Examples
    --------
    >>> normal_form(" “The  EIFFEL Tower”, ") == normal_form("the Eiffel tower")
    True
    >>> normal_form("Straße"), normal_form("2006–07"), normal_form("!!!")
    ('strasse', '2006-07', '!!!')
    """
    folded = _without(text, "Cf")
    for _ in range(2):  # each undoes a little of the other; twice is stable
        folded = unicodedata.normalize("NFKC", folded).casefold()
    folded = unicodedata.normalize("NFKC", folded).translate(_QUOTES)
    plain = "".join("-" if unicodedata.category(c) == "Pd" else c for c in folded)
    spaced = " ".join(plain.split())
    return spaced.strip(_OUTER) or spaced


def relation_of(request: EditRequest) -> tuple[str, str]:
    """Return what the request asks about its subject: how it is named, and the name.

    Returns
    -------
    kind : str
        ``id`` where the request has a ``relation_id``, else ``template``.
    name : str
        The identifier, or the prompt template with its ``{}``, both in normal form.
        Two templates of one relation are therefore one only where records name it.
    """
    if request.relation_id:
        return "id", normal_form(request.relation_id)
    return "template", normal_form(request.prompt)


def fact_of(request: EditRequest) -> tuple[str, str, str]:
    """Return what two requests share when they are about the same fact.

    That is the relation, see :func:`relation_of`, and the subject in normal form; the
    target is no part of it.
    """
    return *relation_of(request), normal_form(request.subject)


def _without(text: str, category: str) -> str:
    return "".join(c for c in text if unicodedata.category(c) != category)
