"""Models of the hub: fetched once into its own cache."""

from pathlib import Path

from nfa.errors import Refusal
from nfa.registry.families.language.base import files
from nfa.registry.families.language.base.model_names import ALLOWED
from nfa.registry.families.language.base.quiet import quiet

SECONDS = 5.0  # until a server that does not answer is given up
REST = (
    "*.safetensors", "model.safetensors.index.json", "generation_config.json", "tokenizer*", "special_tokens_map.json",
    "added_tokens.json", "chat_template*", "vocab*", "merges.txt", "*.model",
)  # fmt: skip


def snapshot(name: str) -> Path:
    """The folder of configuration, safetensors and tokenizer of a hub id; nothing else is fetched, and no pickle.

    What is there already is used where the hub does not answer within 5 s. `Refusal` for ids that are not there or not
    open, and, before its weights are fetched, for a quantised model.
    """
    wrong = _asked(name)
    files.configuration(_fetched(name, ("config.json",), wrong))
    return _fetched(name, ("config.json", *REST), wrong)


def _asked(name: str) -> Exception | None:
    """Return the error if the hub does not respond or does not know the id; downloads themselves have no time limit."""
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(name, timeout=SECONDS)
    except Exception as error:  # of the hub's or the transport's
        return error
    return None


def _fetched(name: str, patterns: tuple[str, ...], wrong: Exception | None) -> Path:
    """Return the folder in the hub's cache, downloaded unless something is `wrong`."""
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            # Other layouts of the same weights lie in subfolders and in files of their own names.
            found = snapshot_download(
                name,
                allow_patterns=list(patterns),
                ignore_patterns=["*/*", "consolidated*", "adapter_model*"],
                local_files_only=wrong is not None,
            )
    except Exception as error:  # of the hub's, the transport's, or the file system's
        cause = wrong or error
        reason = f"{type(cause).__name__}: {(str(cause).strip().splitlines() or [''])[0]}"
        got = f"base_model={name!r} (not a local folder, and not downloadable from the hub: {reason})"
        remedy = "check the id and the network, or pass the folder of a model, or base_model=smollm2 or tiny"
        raise Refusal(got, ALLOWED, remedy) from None
    return Path(found)
