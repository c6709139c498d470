"""``python -m dereason``."""

from dereason.cli.main import run_cli

run_cli()
