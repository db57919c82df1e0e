"""`python -m sage_agent` is `sage-agent`."""

from sage_agent.cli import main

if __name__ == "__main__":
    main()
