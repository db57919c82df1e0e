"""The agent runtime of the production deployment guide: the server that runs an LLM agent, instrumented with sage_obs."""
