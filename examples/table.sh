#!/bin/sh
# How good is the student, and does distillation make the difference? This script fine-tunes five models on several
# tasks, with several seeds, and puts their scores into one table: the teacher; the student; the student with a task
# teacher; and two baselines without distillation, the extracted student and the student trained by masked LM alone.
# Change the variables, then run `sh table.sh`. If it was interrupted, run it again: it continues where it stopped.
set -eu

TEACHER=${TEACHER:-bert-base-uncased} # a directory or a hub id
CORPUS=${CORPUS:-corpus.txt}          # text to distil on
TASKS=${TASKS:-cola mrpc rte stsb}    # tasks of `distilkit finetune --help`, except glue
DATA=${DATA:-data}                    # folder with one folder per task, each with train.* and validation.* files
SEEDS=${SEEDS:-3}                     # number of seeds per fine-tuning
RECIPE=${RECIPE:-distilbert-2019}     # recipe of the distillation: a shipped one or your own file
TUNING=${TUNING:-}                    # options of every fine-tuning, for example: --lr 1e-4
TIMING=${TIMING:-}                    # options of bench, for example: --devices cuda
OUT=${OUT:-table}                     # output directory

# Run a command that writes a directory, unless the directory is finished.
make_once() {
    directory=$1
    shift
    [ -f "$directory/distilkit.json" ] || distilkit "$@" -o "$directory"
}

mkdir -p "$OUT/measured"
make_once "$OUT/extracted" init "$TEACHER"
make_once "$OUT/student" distill "$OUT/extracted" --corpus "$CORPUS" --recipe "$RECIPE" --resume
make_once "$OUT/masked-lm" distill "$OUT/extracted" --corpus "$CORPUS" --recipe "$RECIPE" --resume \
    --objective mlm --alpha-ce 0 --alpha-mlm 1 --alpha-cos 0

for task in $TASKS; do
    tune() { # NAME MODEL [OPTION…]
        name=$1 model=$2
        shift 2
        # shellcheck disable=SC2086 - TUNING holds several words
        make_once "$OUT/tuned/$name/$task" finetune "$model" --task "$task" --data "$DATA/$task" --seeds "$SEEDS" --resume \
            $TUNING "$@"
    }
    tune teacher "$TEACHER"
    for name in extracted masked-lm student; do
        tune "$name" "$OUT/$name"
    done
    tune second-step "$OUT/student" --teacher "$OUT/tuned/teacher/$task"
    distilkit eval "$OUT/tuned/teacher/$task" "$OUT/tuned/student/$task" "$OUT/tuned/second-step/$task" \
        "$OUT/tuned/extracted/$task" "$OUT/tuned/masked-lm/$task" --task "$task" --data "$DATA/$task" \
        --against "$OUT/tuned/teacher/$task" --control "$OUT/tuned/masked-lm/$task" \
        --control "$OUT/tuned/extracted/$task" --json >"$OUT/measured/eval-$task.json"
done

# shellcheck disable=SC2086
set -- $TASKS # bench measures only the models of the first task
# shellcheck disable=SC2086
distilkit bench "$OUT/tuned/teacher/$1" "$OUT/tuned/student/$1" $TIMING --json >"$OUT/measured/bench.json"
distilkit report "$OUT/tuned/teacher" "$OUT/tuned/student" "$OUT/tuned/second-step" "$OUT/tuned/extracted" \
    "$OUT/tuned/masked-lm" "$OUT/student" "$OUT/masked-lm" "$OUT/measured" -o "$OUT/report"
