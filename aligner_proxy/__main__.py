"""Entry point of `python -m aligner_proxy`, which is the same as the command `aligner-proxy`."""

from aligner_proxy.cli import main

if __name__ == "__main__":
    main()
