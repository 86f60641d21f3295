"""`python -m aligner_proxy` is the console script `aligner-proxy`."""

from aligner_proxy.cli import main

if __name__ == "__main__":
    main()
