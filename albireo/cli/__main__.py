"""``python -m albireo.cli``."""

from albireo.cli import main

main()
