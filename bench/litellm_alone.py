"""`python -m bench.litellm_alone OPTIONS`: LiteLLM's command line in this interpreter."""

from litellm import run_server

if __name__ == "__main__":
    run_server()
