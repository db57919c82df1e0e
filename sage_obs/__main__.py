"""`python -m sage_obs` is the `sage-obs` command."""

from sage_obs.cli import main

main()
