"""Process management of a gateway: the supervisor of engine and LiteLLM, and how LiteLLM is started."""
