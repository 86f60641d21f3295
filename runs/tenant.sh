#!/bin/sh
# From what reviewers said of one tenant's answers to an adapter of its own: rows, data and config, training, export.
#
#     POLICY=policies.yaml TENANT=acme runs/tenant.sh
#
# Minutes on two CPU cores. Nothing is put in force: name the folder under `aligner.adapters`, let it judge beside
# (`shadow_aligner: acme`) or give it a share (`aligner: {default: 95, acme: 5}`), and look at `aligner-proxy compare`.
# SINCE (how far back), INIT (the aligner that is trained on), RUNS (what is made on the way), ALIGNER (the folder that
# the gateway loads) and SET (KEY=VALUE ... of the stage's config) may say something else.
set -eu
: "${POLICY:?set POLICY to the policies file that names the audit store}"
: "${TENANT:?set TENANT to the team whose answers were reviewed}"
RUNS=${RUNS:-runs/tenants/$TENANT} SINCE=${SINCE:-90d} INIT=${INIT:-aligner_proxy/embedded} SET=${SET:-}
ALIGNER=${ALIGNER:-$RUNS/aligner} PYTHON=${PYTHON:-python}

mkdir -p "$RUNS"
chmod 700 "$RUNS"
"$PYTHON" -m aligner_proxy export --policy "$POLICY" --tenant "$TENANT" --since "$SINCE" --out "$RUNS/rows.jsonl"
# shellcheck disable=SC2086 - several settings are several words
"$PYTHON" -m models.train.tenant "$RUNS/rows.jsonl" "$RUNS" --init "$INIT" ${SET:+--set $SET}
# Training goes on where it was stopped, but never into what came of other rows.
rows=$(cksum <"$RUNS/train.jsonl")
[ "$(cat "$RUNS/trained.cksum" 2>/dev/null || true)" = "$rows" ] || rm -rf "$RUNS/trained"
echo "$rows" >"$RUNS/trained.cksum"
[ -f "$RUNS/trained/stage.json" ] || "$PYTHON" -m models.train "$RUNS/tenant.yaml"
"$PYTHON" -m models.train.export "$RUNS/trained" "$ALIGNER" --no-ends
echo "$ALIGNER"
