"""Entry point `import_checkpoints`."""

from pathlib import Path

from nfa.errors import Refusal
from nfa.registry.cli import main
from nfa.registry.datasets import catalog
from nfa.registry.families.mlp import old_checkpoints
from nfa.registry.families.mlp.config import ImportConfig
from nfa.registry.signals import shielded


def start(config: ImportConfig) -> None:
    """Find the files and their data while nothing heavy is loaded, then import."""
    folder = catalog.typed_folder(config.folder).resolve()
    files = old_checkpoints.choose(old_checkpoints.find(listed(folder)), config.epochs, config.folder)
    config = old_checkpoints.complete(config, files)
    data_files = catalog.locate(config.dataset, config.data_dir)
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.registry.families.mlp.import_checkpoints import import_checkpoints

    import_checkpoints(config, folder, files, data_files)


def listed(folder: Path) -> list[str]:
    """Paths of the files in a folder and in its folder `models`, relative to it; `Refusal` where it cannot be read."""
    models = folder / "models"
    try:
        inside = [*folder.iterdir(), *(models.iterdir() if models.is_dir() else ())]
    except OSError as error:
        raise Refusal(
            f"folder={folder} ({error.strerror})",
            "a folder of old checkpoint files that can be read",
            "check its name; a relative one counts from where the command is typed",
        ) from None
    return [path.relative_to(folder).as_posix() for path in inside if path.is_file()]


if __name__ == "__main__":
    main("import_checkpoints", ImportConfig, start)
