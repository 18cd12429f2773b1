"""Run `python -m conslaw` as the command `conslaw`."""

from conslaw.paper.commands import main

main()
