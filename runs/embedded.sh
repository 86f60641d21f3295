#!/bin/sh
# Makes the embedded aligner: data, eight stages, calibration, export, figures. Stopped, it goes on where it was.
#
#     DATA=folder-with-the-research-data runs/embedded.sh      (models.evaluate.strong_upstreams, on other data, is the one step more)
#
# About five hours on two idle CPU cores, half of that where they have AMX. The variables below exist so that the same
# commands can be run on a tiny model: CONFIGS (stage configs), RUNS (what is made on the way), N (examples of the last
# stage), LIMIT (answers a set), ALIGNER (the folder that the gateway loads).
set -eu
: "${DATA:?set DATA to the folder with the research data}"
CONFIGS=${CONFIGS:-configs/train} RUNS=${RUNS:-runs} N=${N:-9000} LIMIT=${LIMIT:-60}
ALIGNER=${ALIGNER:-aligner_proxy/embedded} PYTHON=${PYTHON:-python}

if [ ! -f "$RUNS/data/bags.jsonl" ]; then
    mix() { "$PYTHON" -m models.data.mixture --data "$DATA" "$@"; }
    mix --seed 1 --stage warmup --n 300 --out "$RUNS/data/warmup.jsonl"
    mix --seed 2 --stage equal_preference --n 300 --out "$RUNS/data/equal_preference.jsonl"
    mix --seed 3 --stage contrastive_preference --n "$N" --out "$RUNS/data/contrastive_preference.jsonl"
    "$PYTHON" -m models.data.test_sets --data "$DATA" --side dev --seed 5 --out "$RUNS/data/dev"
    "$PYTHON" -m models.data.test_sets --data "$DATA" --side test --seed 7 --out "$RUNS/data/test"
    mix --seed 4 --stage conversation --n "$((N / 2))" --out "$RUNS/data/conversation.jsonl"
    mix --seed 21 --stage dense --n "$((N * 28 / 45))" --out "$RUNS/data/dense.jsonl"
    mix --seed 31 --stage dense --n "$((N * 85 / 90))" --out "$RUNS/data/denser.jsonl"
    mix --seed 41 --stage wishes --n "$((N * 2))" --out "$RUNS/data/wishes.jsonl"
    mix --seed 43 --stage settle --n "$((N * 76 / 90))" --out "$RUNS/data/settle.jsonl"
    mix --bags --out "$RUNS/data/bags.jsonl"
fi
for stage in warmup equal_preference contrastive_preference conversation dense denser wishes settle; do
    [ -f "$RUNS/$stage/stage.json" ] || "$PYTHON" -m models.train "$CONFIGS/$stage.yaml"
done
"$PYTHON" -m models.train.export "$RUNS/settle" "$RUNS/uncalibrated"
"$PYTHON" -m models.evaluate.calibrate "$RUNS/uncalibrated" "$RUNS/data/dev" --out "$RUNS/calibration" \
    --limit "$((LIMIT * 5 / 2))" --others "$((LIMIT / 2))"
# Without the place behind the last segment: it sees what is missing there, but words of its own are seldom right yet.
"$PYTHON" -m models.train.export "$RUNS/settle" "$ALIGNER" --no-ends \
    --calibration "$RUNS/calibration/calibration.json"
"$PYTHON" -m models.evaluate.test_sets "$ALIGNER" "$RUNS/data/test" --out "$RUNS/evaluation" --limit "$LIMIT"
