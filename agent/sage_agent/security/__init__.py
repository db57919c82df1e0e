"""Who may ask, and how they prove it."""
