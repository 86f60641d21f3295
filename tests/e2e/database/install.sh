#!/bin/sh
# What the tests with LiteLLM's own database need besides PostgreSQL and Node: Prisma's Python client, and its query
# engine as WebAssembly, since the binary is not on any package index. Usage: install.sh PYTHON FOLDER
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)
"$python" -m pip install --quiet --upgrade --target "$folder/site" --no-deps \
    prisma==0.15.0 nodeenv==1.12.0 tomlkit==0.15.2 strenum==0.5.0
cp "$here/package.json" "$here/package-lock.json" "$folder/"
(cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --silent)
printf '#!/bin/sh\nexec node "%s" "$@"\n' "$here/engine.mjs" > "$folder/query-engine"
printf '#!/bin/sh\necho "schema-engine-cli 393aa359c9ad4a4bb28630fb5613f9c281cde053"\n' > "$folder/schema-engine"
chmod +x "$folder/query-engine" "$folder/schema-engine"
schema=$("$python" -c 'import importlib.util as u; print(u.find_spec("litellm_proxy_extras").submodule_search_locations[0])')
sed 's/binaryTargets = .*/binaryTargets = ["native"]/' "$schema/schema.prisma" > "$folder/schema.prisma"
export ENGINE_PACKAGES="$folder" PRISMA_BINARY_CACHE_DIR="$folder" PYTHONPATH="$folder/site" PATH="$folder/site/bin:$PATH"
export PRISMA_QUERY_ENGINE_BINARY="$folder/query-engine" PRISMA_QUERY_ENGINE_LIBRARY="$folder/query-engine"
export PRISMA_SCHEMA_ENGINE_BINARY="$folder/schema-engine" PRISMA_CLI_QUERY_ENGINE_TYPE=binary
"$python" -m prisma generate --schema "$folder/schema.prisma"
