"""What makes files of the repository. Nothing of it is installed."""
