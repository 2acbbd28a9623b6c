"""Entry point `synthesize_teacher`."""

from nfa.cli import main
from nfa.config import SynthesizeTeacherConfig
from nfa.ends import shielded


def start(config: SynthesizeTeacherConfig) -> None:
    """Extend a trained adapter into a teacher."""
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.jobs.lora.synthesize_teacher import synthesize_teacher

    synthesize_teacher(config)


if __name__ == "__main__":
    main("synthesize_teacher", SynthesizeTeacherConfig, start)
