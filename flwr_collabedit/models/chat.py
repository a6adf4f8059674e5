"""Prompts of instruct models: a question as the user's turn, before the answer.

Only the text changes: what comes out is a plain prompt, which the tokenizer turns into
the very tokens that a chat with the model begins with (`flwr_collabedit.models.tokens`
does not repeat a beginning-of-text token), and which everything else takes as any other
prompt.

An edit of chat prompts has the bare context alone (``ContextTemplates()``): text before
the user's turn is nothing that the model ever saw, and text within it would be another
question. So a target is optimised on, and a key is read from, the one text in which
the question will be asked. The KL term reads "{subject} is a" without a turn.
"""

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from flwr_collabedit.errors import ConfigurationError, RequestFormatError


def chat_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """Return a prompt as the user's turn, up to where the model's answer begins.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        One with a chat template. Where the template has no beginning-of-text token but
        the tokenizer adds one to every text, the chat gets that one too.
    prompt : str
        With or without a ``{}`` for the subject.

    Returns
    -------
    str
        The answer follows after whatever white space the template ends in, or after one
        space.

    Raises
    ------
    ConfigurationError
        If the tokenizer has no chat template, or the template fails.
    RequestFormatError
        If the template changes the number of ``{}``.
    """
    text = _render(tokenizer, prompt)
    if text.count("{}") != prompt.count("{}"):
        raise RequestFormatError(
            f"Expected the chat template to leave the prompt {prompt!r} as it is; "
            f"found {text.count('{}')} '{{}}' in {text!r} for its "
            f"{prompt.count('{}')}. Use a template without '{{}}' that does not change "
            "what the user says."
        )
    return text


def _render(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    if not tokenizer.chat_template:
        raise ConfigurationError(
            "Expected a tokenizer with a chat template; found none in "
            f"{tokenizer.name_or_path!r}. Use the instruct version of the model, save "
            "a chat_template.jinja into its folder, or leave the chat template out."
        )
    turns = [{"role": "user", "content": prompt}]
    try:
        return str(
            tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True
            )
        )
    except (TemplateError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"Expected the chat template of {tokenizer.name_or_path!r} to take one "
            f"user's turn; it failed: {error}. Correct its chat_template.jinja, or "
            "leave the chat template out."
        ) from error
