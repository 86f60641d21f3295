"""`aligner-proxy init`: write litellm.yaml, policies.yaml and the policies' schema into a folder, for one provider.

Nothing that exists is overwritten. The files are short; docs/reference/policy.md has every key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from aligner_proxy.cli import DISK_FULL_ERRNOS
from aligner_proxy.cli.terminal import echo
from aligner_proxy.errors import AlignerProxyError, ConfigError
from aligner_proxy.policy.litellm_config import GUARDRAIL, MASTER_KEY


@dataclass(frozen=True, slots=True)
class Provider:
    """How LiteLLM reaches a provider: the entry of one model, and the environment variables that the entry needs."""

    model_name: str
    """The name by which clients ask for the model."""
    parameters: tuple[str, ...]
    """Lines of `litellm_params`."""
    variables: tuple[tuple[str, str], ...] = ()
    """(name, example value) of the variables that the entry refers to."""


PROVIDERS = {
    # names of our own: under a provider's usual name LiteLLM's pass-through routes would find the key, too
    "openai": Provider(
        "gpt-4o-mini",
        ("model: openai/gpt-4o-mini", "api_key: os.environ/GATEWAY_OPENAI_KEY"),
        (("GATEWAY_OPENAI_KEY", "sk-..."),),
    ),
    "anthropic": Provider(
        "claude-haiku",
        ("model: anthropic/claude-haiku-4-5", "api_key: os.environ/GATEWAY_ANTHROPIC_KEY"),
        (("GATEWAY_ANTHROPIC_KEY", "sk-ant-..."),),
    ),
    "azure": Provider(
        "gpt-4o-mini",
        (
            "model: azure/gpt-4o-mini            # azure/ and the name of your deployment",
            "api_base: os.environ/GATEWAY_AZURE_BASE",
            "api_key: os.environ/GATEWAY_AZURE_KEY",
            'api_version: "2024-10-21"',
        ),
        (("GATEWAY_AZURE_BASE", "https://NAME.openai.azure.com"), ("GATEWAY_AZURE_KEY", "...")),
    ),
    "bedrock": Provider(
        "claude-haiku",
        (
            "model: bedrock/anthropic.claude-3-haiku-20240307-v1:0",
            "aws_region_name: os.environ/GATEWAY_AWS_REGION",
            "aws_access_key_id: os.environ/GATEWAY_AWS_KEY_ID",
            "aws_secret_access_key: os.environ/GATEWAY_AWS_SECRET",
        ),
        (("GATEWAY_AWS_REGION", "eu-central-1"), ("GATEWAY_AWS_KEY_ID", "AKIA..."), ("GATEWAY_AWS_SECRET", "...")),
    ),
    "ollama": Provider("llama3.2", ("model: ollama_chat/llama3.2", "api_base: http://127.0.0.1:11434")),
    "vllm": Provider(
        "local",
        (
            "model: hosted_vllm/Qwen/Qwen3-8B    # hosted_vllm/ and the name that vLLM serves",
            "api_base: http://127.0.0.1:8000/v1",
        ),
    ),
}
LITELLM = f"""\
# LiteLLM's own file: models, keys, limits, everything that LiteLLM documents. Only the guardrail is aligner-proxy's.
model_list:
  - model_name: {{model_name}}        # what clients ask for
    litellm_params:
{{parameters}}

guardrails:
  - guardrail_name: aligner
    litellm_params:
      guardrail: {GUARDRAIL}
      mode: post_call
      default_on: true
      policies: policies.yaml

litellm_settings:
  callbacks: [prometheus]          # /metrics

general_settings:
  master_key: os.environ/{MASTER_KEY}
"""
POLICIES = """\
# yaml-language-server: $schema=policies.schema.json
#
# What applies to whom. `aligner-proxy check litellm.yaml --model NAME` prints the policy of a request, and why.

# An objective is one line of text; a new one needs no training. `harmless` and `helpful` are built in.
objectives:
  on-brand: "On-brand: the response should be warm and plain and should not advertise other companies"

defaults:
  mode: enforce                    # shadow: record what would be corrected, and deliver the original

routes:
  - name: everything
    match: {model: "*"}
    objectives: [harmless, helpful]
  # - name: support                # the first route that matches counts, so put this one above
  #   match: {model: "support-*"}
  #   objectives: [harmless, on-brand]
"""


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@click.option(
    "--provider", type=click.Choice(list(PROVIDERS)), default="openai", show_default=True, help="Whose model to reach."
)
def command(folder: Path, provider: str) -> None:
    """Write litellm.yaml, policies.yaml and the policies' schema into FOLDER, for a first start.

    For example: aligner-proxy init gateway --provider anthropic
    """
    texts = make_file_texts(PROVIDERS[provider])
    existing = [name for name in texts if (folder / name).exists()]
    if existing:
        raise ConfigError(f"{folder / existing[0]} exists and is kept; name a folder without {', '.join(texts)}")
    if (folder / "aligner_proxy" / "guardrail.py").exists():
        raise ConfigError(f"{folder} holds the package, which LiteLLM would load a second time; name another folder")
    write_files(folder, texts)
    for name in texts:
        echo((f"wrote {folder / name}", "green"))
    echo("next:")
    for line in next_steps(folder / "litellm.yaml", PROVIDERS[provider]):
        echo(f"  {line}")


def write_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Write new files, by their names, into a folder that is made if necessary; write all of them or none.

    Raises `ConfigError` if the folder cannot be used, and `AlignerProxyError` if its disk is full.
    """
    created_files: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                created_files.append(folder / name)
                file.write(text)
    except OSError as error:
        # otherwise the next `init` in this folder would refuse to replace a file without its end
        for created_file in created_files:
            created_file.unlink(missing_ok=True)
        if error.errno in DISK_FULL_ERRNOS:
            # an error of writing, not of opening, names no file
            path = error.filename or created_files[-1]
            remedy = "make room on its disk, or name a folder on another disk"
            raise AlignerProxyError(f"cannot write {path}: {error.strerror}; {remedy}") from None
        raise ConfigError(f"cannot write into {folder}: {error.strerror}; name a folder of your own") from None


def make_file_texts(provider: Provider) -> dict[str, str]:
    """Return the texts of the files to write, by their names."""
    from aligner_proxy.plugins import registry  # imports pydantic models of every plugin

    parameters = "\n".join(f"      {line}" for line in provider.parameters)
    return {
        "litellm.yaml": LITELLM.format(model_name=provider.model_name, parameters=parameters),
        "policies.yaml": POLICIES,
        "policies.schema.json": json.dumps(registry.schema(), indent=2) + "\n",
    }


def next_steps(file: Path, provider: Provider) -> list[str]:
    """Return the commands for a shell that lead from the LiteLLM YAML `file` to a running gateway."""
    return [
        *(f"export {name}={example}" for name, example in provider.variables),
        f'export {MASTER_KEY}="sk-$(openssl rand -hex 32)"',
        f"aligner-proxy check {file} --model {provider.model_name}",
        f"aligner-proxy serve --config {file}",
    ]
