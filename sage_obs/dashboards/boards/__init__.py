"""The boards, one module each; `board()` in each makes it."""
