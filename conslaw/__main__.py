"""The command `conslaw`, which is also `python -m conslaw`."""

import sys


def main() -> None:
    """Run the command line. It needs the extra `notebooks`; without, say so."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that has no Greek letters shows the rest
    try:
        from conslaw.paper import commands
    except ModuleNotFoundError as error:
        if str(error.name).startswith("conslaw"):
            raise
        sys.exit(f"the command conslaw needs the package {error.name}: pip install 'conslaw[notebooks]'")
    commands.main()


if __name__ == "__main__":
    main()
