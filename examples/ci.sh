#!/bin/sh
# Gates for CI: make a small model on a tiny budget and fail the build where it keeps too little or gains too little.
# Copy it, set the variables here or in the environment, and run `sh ci.sh`: exit 3 where a gate is not met.
set -eu

TEACHER=${TEACHER:-bert-base-uncased} # a directory or a hub id
CORPUS=${CORPUS:-corpus.txt}          # plain text for the distillation
TASK=${TASK:-sst2}                    # one task that `distilkit finetune --help` lists (not glue, not custom)
DATA=${DATA:-data/sst2}               # folder with train.* and validation.* of the task
RECIPE=${RECIPE:-smoke}               # smoke only shows that all runs: give a recipe of your own, or no gate means a thing
OUT=${OUT:-ci}                        # where everything goes
KEEPS=${KEEPS:-0.90}                  # least share of the teacher's score
SPEEDUP=${SPEEDUP:-1.2}               # least gain in speed

# Exit code 3 is a gate that is not met: note it and go on, so that one build shows all of them. Others end the build.
status=0
gate() {
    code=0
    "$@" || code=$?
    case $code in
        0) ;;
        3) status=3 ;;
        *) exit "$code" ;;
    esac
}

mkdir -p "$OUT"
distilkit init "$TEACHER" -o "$OUT/student"
distilkit distill "$OUT/student" --corpus "$CORPUS" --recipe "$RECIPE" -o "$OUT/distilled"
distilkit finetune "$TEACHER" --task "$TASK" --data "$DATA" --recipe "$RECIPE" -o "$OUT/teacher-$TASK"
distilkit finetune "$OUT/distilled" --task "$TASK" --data "$DATA" --recipe "$RECIPE" -o "$OUT/student-$TASK"
# the control: the same student without the distillation
distilkit finetune "$OUT/student" --task "$TASK" --data "$DATA" --recipe "$RECIPE" -o "$OUT/control-$TASK"

gate distilkit eval "$OUT/student-$TASK" --task "$TASK" --data "$DATA" \
    --against "$OUT/teacher-$TASK" --control "$OUT/control-$TASK" --require "retention>=$KEEPS" --json \
    >"$OUT/student-$TASK/eval.json"
gate distilkit bench "$OUT/teacher-$TASK" "$OUT/student-$TASK" --recipe "$RECIPE" --require "1/speedup>=$SPEEDUP" --json \
    >"$OUT/student-$TASK/bench.json"

[ "$status" -eq 0 ] || echo "a gate is not met: see above and $OUT/student-$TASK/*.json" >&2
exit "$status"
