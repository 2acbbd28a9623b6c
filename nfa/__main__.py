"""`python -m nfa NAME --key value`: the entry points, without the project's folder."""

import difflib
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Start the entry point that the first argument names; without an argument, list the entry points."""
    from nfa import __version__
    from nfa.errors import Refusal
    from nfa.registry import cli
    from nfa.registry.commands import typed_command
    from nfa.registry.entry_points import entry_points

    points, name = entry_points(), sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in points:
        del sys.argv[1]
        cli.main(name)
    if name in ("-h", "--help"):
        lines = [f"  {each:<20} {(it.parameters.__doc__ or '').strip().splitlines()[0]}" for each, it in points.items()]
        cli.show("\n".join([f"{typed_command('NAME')} [--parameter value ...]", "", *lines]))
        sys.exit(0)
    if name == "--version":
        print(f"nfa {__version__}")
        sys.exit(0)
    near = difflib.get_close_matches(name, points, n=1)
    refusal = Refusal(f"entry point {name!r}", ", ".join(points), f"did you mean {near[0]}?" if near else "see --help")
    print(f"error: {refusal}", file=sys.stderr)
    sys.exit(refusal.exit_code)


if __name__ == "__main__":
    main()
