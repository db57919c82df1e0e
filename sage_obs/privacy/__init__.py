"""What must not leave the process: secrets in whatever is written down."""
