"""Cases of instruct models: each of their prompts as a user's turn."""

from transformers import PreTrainedTokenizerBase

from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.data.rewriting import rewritten
from flwr_collabedit.models.chat import chat_prompt


def chat_case(
    tokenizer: PreTrainedTokenizerBase, case: EvaluationCase
) -> EvaluationCase:
    """Return the case with each of its prompts in the chat template.

    Parameters and errors as `flwr_collabedit.models.chat.chat_prompt` has them; targets
    and answers stay.
    """
    return rewritten(case, lambda prompt: chat_prompt(tokenizer, prompt))
