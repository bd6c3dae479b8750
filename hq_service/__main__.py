"""``python -m hq_service``: the command line without installation."""

from hq_service.cli import main

main(prog_name="hq")
