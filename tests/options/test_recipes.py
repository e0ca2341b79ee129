"""config: where an option's value comes from, and what a recipe may say."""

from dataclasses import MISSING
from pathlib import Path
from typing import Any

import pytest

from distilkit.errors import DistilkitError
from distilkit.options.bench import BenchOptions
from distilkit.options.declare import build, missing
from distilkit.options.distill import DistillOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.init import InitOptions
from distilkit.options.recipes import COMMANDS, read_recipe, recipe_names, recipe_text
from distilkit.options.spec import fields_of, spec_of
from distilkit.options.values import check

REQUIRED: dict[str, Any] = {"student": "s", "corpus": "c", "output": Path("o")}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_parse(name: str, command: str) -> None:
    """Every table of every shipped recipe makes a config, once what is required is given too."""
    config_class = COMMANDS[command]
    table = read_recipe(name, command)
    lacking = (flag.split()[0].strip("-").replace("-", "_") for flag in missing(config_class, {}, table))
    required = {name: "x.csv" if name == "output" else "x" for name in lacking}
    more = {"models": ("m",)} if command == "eval" else {}
    config = build(config_class, required | ({"task": "rte"} if "task" in required else {}) | more, table)
    for key, value in table.items():
        found = getattr(config, key.replace("-", "_"))
        assert (list(found) if isinstance(found, tuple) else found) == value


def test_there_are_recipes_to_ship() -> None:
    """The original settings and a quick trial are shipped."""
    assert {"distilbert-2019", "smoke"} <= set(recipe_names())


def test_the_2019_recipe_has_the_published_settings() -> None:
    """The losses weigh 5, 2 and 1, and 8 GPUs make updates of 2,000 sequences."""
    config = build(DistillOptions, REQUIRED, read_recipe("distilbert-2019", "distill"))
    assert (config.alpha_ce, config.alpha_mlm, config.alpha_cos, config.temperature) == (5, 2, 1, 2)
    assert (config.lr, config.adam_beta2, config.adam_epsilon, config.max_grad_norm) == (5e-4, 0.98, 1e-6, 5)
    assert 8 * config.batch_size * config.accumulate == 2000


def test_bert_glue_turns_the_adaptation_off() -> None:
    """All settings that finetune would adapt to the model and the rows are given by the recipe."""
    given = build(
        FinetuneOptions, {"model": "m", "task": "rte", "output": Path("o")}, read_recipe("bert-glue", "finetune")
    )
    assert (given.lr, given.epochs, given.warmup) == (2e-5, 3, 0.1)


def test_default_gives_way_to_recipe_and_recipe_to_what_is_typed() -> None:
    """Default < recipe < command line, option by option."""
    config = build(DistillOptions, {**REQUIRED, "lr": 3e-4, "seed": None}, {"lr": 2e-4, "batch-size": 7})
    assert (config.lr, config.batch_size, config.warmup, config.seed) == (3e-4, 7, 0.05, 42)


def test_typed_epochs_are_not_passed_over_for_a_recipe_s_steps() -> None:
    """--steps replaces --epochs, so a typed value of either one overrides both values of the recipe."""
    recipe = {"steps": 400_000, "lr": 2e-4}
    config = build(DistillOptions, {**REQUIRED, "epochs": 1.0}, recipe)
    assert (config.steps, config.epochs, config.lr) == (None, 1.0, 2e-4)
    assert build(DistillOptions, {**REQUIRED, "steps": 5}, {"epochs": 2.0}).steps == 5
    with pytest.raises(DistilkitError, match="--steps or --epochs"):
        build(DistillOptions, {**REQUIRED, "steps": 5, "epochs": 1.0})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"temprature": 2}, "unknown recipe key 'temprature'.*did you mean 'temperature'"),
        ({"batchsize": 2}, "unknown recipe key 'batchsize'.*did you mean 'batch_size'"),
        ({"zzz": 2}, "unknown recipe key 'zzz': known keys are "),
        ({"warmup": 1.5}, r"'warmup' is 1.5: give a number from 0 to 1"),
        ({"batch-size": 0}, r"'batch_size' is 0: give a number from 1"),
        ({"batch-size": 2.5}, r"'batch_size' is 2.5: give a whole number"),
        ({"batch-size": True}, r"'batch_size' is True: give a whole number"),
        ({"lr": "fast"}, r"'lr' is 'fast': give a number"),
        ({"lr": float("nan")}, r"'lr' is nan: give a number from 0"),
        ({"lr": float("inf")}, r"'lr' is inf: give a number from 0"),
        ({"heldout": ""}, r"'heldout' is '': give a value that is not empty"),
        ({"resume": "yes"}, r"'resume' is 'yes': give true or false"),
        ({"objective": "double"}, r"'objective' is 'double': give one of triple, embedding, soft-targets, hidden"),
    ],
)
def test_a_wrong_recipe_is_told_what_is_right(table: dict[str, Any], message: str) -> None:
    """An unknown key names the nearest one; a wrong value names the key, the value and what it may be."""
    with pytest.raises(DistilkitError, match=message):
        build(DistillOptions, REQUIRED, table)


def test_toml_types_become_the_options_own() -> None:
    """Whole numbers do for floats, one entry does for a list, and text does for a path."""
    bench = build(BenchOptions, {"models": ("m",)}, {"batch-sizes": 4, "devices": ["cpu"]})
    assert (bench.batch_sizes, bench.devices) == ((4,), ("cpu",))
    tuned = build(FinetuneOptions, {"model": "m", "task": "rte"}, {"output": "here", "lr": 1})
    assert (tuned.output, tuned.lr, type(tuned.lr)) == (Path("here"), 1.0, float)
    with pytest.raises(DistilkitError, match=r"'batch_sizes' is .*: give a whole number"):
        build(BenchOptions, {"models": ("m",)}, {"batch-sizes": [1, "two"]})


def test_required_options_may_come_from_the_recipe() -> None:
    """What neither the command line nor the recipe gives is listed as it is typed."""
    assert missing(DistillOptions, {"student": "s"}, {"corpus": "c"}) == ["--output"]
    assert missing(DistillOptions, REQUIRED, {}) == []
    given = {"model": "m", "output": "o"}
    assert missing(FinetuneOptions, given, {}) == ["--task or --data"]
    assert missing(FinetuneOptions, given, {"data": "rows"}) == missing(FinetuneOptions, given, {"task": "rte"}) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[distil]\nlr = 1", "has an entry 'distil' that is not a command: give only tables named"),
        ("lr = 1", "has an entry 'lr' that is not a command: give only tables named"),
        ("[distill\n", "is not TOML"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(text: str | bytes, message: str, tmp_path: Path) -> None:
    """A table that is no command, a key outside a table, broken TOML and other encodings are errors in one line."""
    path = tmp_path / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DistilkitError, match=message) as error:
        read_recipe(str(path), "distill")
    assert "\n" not in str(error.value)


def test_a_recipe_file_is_read_like_a_shipped_one(tmp_path: Path) -> None:
    """A path works where a name does; a command without a table gets none; an unknown name lists the shipped ones."""
    path = tmp_path / "mine.toml"
    path.write_text("[distill]\nlr = 0.25\n")
    assert read_recipe(str(path), "distill") == {"lr": 0.25}
    assert read_recipe(str(path), "init") == {}
    with pytest.raises(DistilkitError, match=r"no recipe 'none': .*distilbert-2019"):
        recipe_text("none")


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_declared_in_full(command: str) -> None:
    """Every field has a help text that ends like a sentence, and a default inside its own bounds."""
    for item, kind in fields_of(COMMANDS[command]):
        assert spec_of(item).help.endswith((".", ")")), item.name
        if item.default is not MISSING:
            assert check(item, kind, item.default) == item.default, item.name


def test_the_default_student_is_spread() -> None:
    """The recipe of 2019 and the default agree on which layers to keep."""
    base = {"teacher": "t", "output": Path("o")}
    assert vars(build(InitOptions, base, read_recipe("distilbert-2019", "init"))) == vars(build(InitOptions, base))
