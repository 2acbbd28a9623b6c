"""Entry point `synthesize_teacher`."""

from nfa.registry.cli import main
from nfa.registry.families.language.teacher.config import SynthesizeTeacherConfig
from nfa.registry.signals import shielded


def start(config: SynthesizeTeacherConfig) -> None:
    """Extend a trained adapter into a teacher."""
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.registry.families.language.teacher.synthesize_teacher import synthesize_teacher

    synthesize_teacher(config)


if __name__ == "__main__":
    main("synthesize_teacher", SynthesizeTeacherConfig, start)
