#!/bin/sh
# Is the student any good, and is it the distillation that made it good? Teacher, student, the same student without
# distillation (twice: not trained further, and trained by masked LM alone) and the student with a task teacher, on
# several tasks, with several seeds, in one table. Change the variables, then run `sh table.sh`; where it was
# interrupted, run it again: what is there is kept, and what was begun goes on.
set -eu

TEACHER=${TEACHER:-bert-base-uncased} # a directory or a hub id
CORPUS=${CORPUS:-corpus.txt}          # plain text for the distillation
TASKS=${TASKS:-cola mrpc rte stsb}    # tasks that `distilkit finetune --help` lists, not glue
DATA=${DATA:-data}                    # a folder a task, each with train.* and validation.*
SEEDS=${SEEDS:-3}                     # of each fine-tuning
RECIPE=${RECIPE:-distilbert-2019}     # of the distillation: a recipe of distilkit's, or a file of your own
TUNING=${TUNING:-}                    # options for every fine-tuning, like: --lr 1e-4
TIMING=${TIMING:-}                    # options for bench, like: --devices cuda
OUT=${OUT:-table}                     # where everything goes

# Make a directory with a command, unless it is made already.
made() {
    directory=$1
    shift
    [ -f "$directory/distilkit.json" ] || distilkit "$@" -o "$directory"
}

mkdir -p "$OUT/measured"
made "$OUT/extracted" init "$TEACHER"
made "$OUT/student" distill "$OUT/extracted" --corpus "$CORPUS" --recipe "$RECIPE" --resume
made "$OUT/masked-lm" distill "$OUT/extracted" --corpus "$CORPUS" --recipe "$RECIPE" --resume \
    --objective mlm --alpha-ce 0 --alpha-mlm 1 --alpha-cos 0

for task in $TASKS; do
    tune() { # NAME MODEL [OPTION…]
        name=$1 model=$2
        shift 2
        # shellcheck disable=SC2086 - TUNING is several words
        made "$OUT/tuned/$name/$task" finetune "$model" --task "$task" --data "$DATA/$task" --seeds "$SEEDS" --resume \
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
set -- $TASKS # the first of them is timed
# shellcheck disable=SC2086
distilkit bench "$OUT/tuned/teacher/$1" "$OUT/tuned/student/$1" $TIMING --json >"$OUT/measured/bench.json"
distilkit report "$OUT/tuned/teacher" "$OUT/tuned/student" "$OUT/tuned/second-step" "$OUT/tuned/extracted" \
    "$OUT/tuned/masked-lm" "$OUT/student" "$OUT/masked-lm" "$OUT/measured" -o "$OUT/report"
