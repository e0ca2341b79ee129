#!/bin/sh
# From a teacher to a small classifier, on your own text: change the variables, then run `sh chain.sh`.
set -eu

TEACHER=bert-base-uncased # a directory or a hub id
CORPUS=corpus.txt         # plain text for the distillation: a file or folder of .txt, .jsonl or .parquet
TASK=sst2                 # one task that `distilkit finetune --help` lists (not glue; custom needs --text and --label too)
DATA=data/sst2            # folder with train.* and validation.* of the task
OUT=chain                 # where everything goes

mkdir -p "$OUT"

# 1. A student with half the teacher's layers.
distilkit init "$TEACHER" -o "$OUT/student"

# 2. The student learns from the teacher on plain text; its record remembers who the teacher is.
distilkit distill "$OUT/student" --corpus "$CORPUS" -o "$OUT/distilled"

# 3. Teacher and student learn the task, the student from the teacher too.
distilkit finetune "$TEACHER" --task "$TASK" --data "$DATA" -o "$OUT/teacher-$TASK"
distilkit finetune "$OUT/distilled" --task "$TASK" --data "$DATA" --teacher "$OUT/teacher-$TASK" -o "$OUT/student-$TASK"

# 4. What the student keeps of the teacher's score, and what it gains in speed.
distilkit eval "$OUT/student-$TASK" --task "$TASK" --data "$DATA" --against "$OUT/teacher-$TASK" --json \
    >"$OUT/student-$TASK/eval.json"
distilkit bench "$OUT/teacher-$TASK" "$OUT/student-$TASK" --json >"$OUT/student-$TASK/bench.json"

# 5. All of it on one page, $OUT/report/report.html.
distilkit report "$OUT/distilled" "$OUT/teacher-$TASK" "$OUT/student-$TASK" -o "$OUT/report"
