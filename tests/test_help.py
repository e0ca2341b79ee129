"""--help and usage errors: panels, whole words, suggestions."""

import re
from typing import Literal, get_args, get_origin

import pytest
from typer.testing import CliRunner, Result

from distilkit.cli import OTHER_NAMES, app
from distilkit.options.recipes import COMMANDS
from distilkit.options.spec import fields_of, flag


def run(*words: str) -> Result:
    """Run distilkit in this process."""
    return CliRunner().invoke(app, words)


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["distil"], "distill"),
        (["init", "t", "-o", "o", "--layer", "3"], "--layers"),
        (["init", "t", "-o", "o", "--strategy", "spred"], "spread"),
        (["finetune", "m", "-o", "o", "--task", "sst-2"], "sst2"),
    ],
)
def test_a_mistyped_word_gets_the_nearest_one(words: list[str], nearest: str) -> None:
    """Commands, options and choices alike."""
    result = run(*words)
    assert result.exit_code == 2
    assert nearest in result.stderr


def test_help_has_panels_defaults_and_examples() -> None:
    """In order of need, with nothing cut and no control characters in a pipe."""
    text = run("distill", "--help").stdout
    panels = [text.index(f"─ {name} ─") for name in ("Input and output", "Objective", "Training", "Teacher cache")]

    assert panels == sorted(panels)
    assert all(words in text for words in ("[default: 0.05]", "[required]", "Examples", "distilkit distill student0"))
    assert "…" not in text.replace("N,N,…", "").replace("--alpha-…", "")
    assert "\x1b" not in text


@pytest.mark.parametrize("command", [*COMMANDS, "recipes"])
def test_choices_are_not_split_inside_a_word(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns every choice is found whole, and each option's name and type stay on one line."""
    monkeypatch.setenv("COLUMNS", "80")
    text = run(command, "--help").stdout
    words = set(re.findall(r"[\w.|-]+", text))
    kinds = [kind for _, kind in fields_of(COMMANDS[command])] if command in COMMANDS else []
    choices = {choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)}

    assert choices <= {word.strip(".") for found in words for word in found.split("|")}
    assert max(map(len, text.splitlines())) <= 80
    assert "<bool>" not in text


def test_other_programs_options_have_ours() -> None:
    """Each suggestion is an option of some command."""
    ours = {flag(item.name) for options_class in COMMANDS.values() for item, _ in fields_of(options_class)}
    assert set(OTHER_NAMES.values()) <= ours
    assert not set(OTHER_NAMES) & ours
