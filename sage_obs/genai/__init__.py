"""What an agent does: requests, calls to language models, tools, and the time it waits for them."""
