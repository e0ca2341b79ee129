#!/bin/sh
# Gates for CI: make a student, and fail the build if it loses too much quality or gains too little speed.
# Copy it, set the variables here or in the environment, and run `sh ci.sh`. The exit code is 3 if a gate is not met.
set -eu

TEACHER=${TEACHER:-bert-base-uncased} # a directory or a hub id
CORPUS=${CORPUS:-corpus.txt}          # text to distil on
TASK=${TASK:-sst2}                    # a task of `distilkit finetune --help`, except glue and custom
DATA=${DATA:-data/sst2}               # folder with the task's train.* and validation.* files
RECIPE=${RECIPE:-smoke}               # smoke only tests that everything runs; real gates need your own recipe
OUT=${OUT:-ci}                        # output directory
KEEPS=${KEEPS:-0.90}                  # minimum retention: share of the teacher's score
SPEEDUP=${SPEEDUP:-1.2}               # minimum speed-up over the teacher

# Exit code 3 means that a gate failed. Continue then, so that one build shows all failed gates. Stop at any other error.
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
# The baseline: the same student without distillation.
distilkit finetune "$OUT/student" --task "$TASK" --data "$DATA" --recipe "$RECIPE" -o "$OUT/control-$TASK"

gate distilkit eval "$OUT/student-$TASK" --task "$TASK" --data "$DATA" \
    --against "$OUT/teacher-$TASK" --control "$OUT/control-$TASK" --require "retention>=$KEEPS" --json \
    >"$OUT/student-$TASK/eval.json"
gate distilkit bench "$OUT/teacher-$TASK" "$OUT/student-$TASK" --recipe "$RECIPE" --require "1/speedup>=$SPEEDUP" --json \
    >"$OUT/student-$TASK/bench.json"

[ "$status" -eq 0 ] || echo "a gate is not met: see the messages above and $OUT/student-$TASK/*.json" >&2
exit "$status"
