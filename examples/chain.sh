#!/bin/sh
# From a teacher to a small classifier, on your own text. Change the variables, then run `sh chain.sh`.
set -eu

TEACHER=bert-base-uncased # a directory or a hub id
CORPUS=corpus.txt         # text to distil on: a file or folder of .txt, .jsonl or .parquet
TASK=sst2                 # a task of `distilkit finetune --help` (not glue; custom also needs --text and --label)
DATA=data/sst2            # folder with the task's train.* and validation.* files
OUT=chain                 # output directory

mkdir -p "$OUT"

# 1. Extract a student with half of the teacher's layers.
distilkit init "$TEACHER" -o "$OUT/student"

# 2. Distil: train the student on the text. Its distilkit.json names the teacher.
distilkit distill "$OUT/student" --corpus "$CORPUS" -o "$OUT/distilled"

# 3. Fine-tune the teacher, then fine-tune the student on the labels and the fine-tuned teacher's soft targets.
distilkit finetune "$TEACHER" --task "$TASK" --data "$DATA" -o "$OUT/teacher-$TASK"
distilkit finetune "$OUT/distilled" --task "$TASK" --data "$DATA" --teacher "$OUT/teacher-$TASK" -o "$OUT/student-$TASK"

# 4. Measure retention (the share of the teacher's score) and the speed-up.
distilkit eval "$OUT/student-$TASK" --task "$TASK" --data "$DATA" --against "$OUT/teacher-$TASK" --json \
    >"$OUT/student-$TASK/eval.json"
distilkit bench "$OUT/teacher-$TASK" "$OUT/student-$TASK" --json >"$OUT/student-$TASK/bench.json"

# 5. Put all results on one page: $OUT/report/report.html.
distilkit report "$OUT/distilled" "$OUT/teacher-$TASK" "$OUT/student-$TASK" -o "$OUT/report"
