"""Set-up of the workspace: what `./mu0` runs. Standard library only."""
