"""The model card, read back with huggingface_hub, and which README.md may be overwritten."""

import ast
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from records import write_model

from distilkit.commands.report import report
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.init import InitOptions
from distilkit.options.report import ReportOptions
from distilkit.record import record


def write_cards(out: Path, *directories: Path, force: bool = False) -> None:
    report(ReportOptions(directories=tuple(map(str, directories)), output=out, card=True, force=force))


def test_metadata_are_read_back_as_the_hub_does(chain: Path, tmp_path: Path) -> None:
    """Base model, data set, kind of model and every score of the eval record come back from the YAML."""
    write_cards(tmp_path / "out", chain)
    data = ModelCard.load(chain / "student-tuned/README.md").data
    assert data.base_model == "some/teacher"
    assert data.datasets is None  # the rows were in a local folder
    assert (data.license, data.license_name) == ("other", "to-be-filled-in")
    assert (data.library_name, data.pipeline_tag, data.model_name) == (
        "transformers",
        "text-classification",
        "student-tuned",
    )
    assert "knowledge-distillation" in data.tags
    found = {entry.metric_type: entry for entry in data.eval_results}
    assert {name: entry.metric_value for name, entry in found.items()} == {"f1": 0.836, "accuracy": 0.78}
    first = found["f1"]
    assert (first.dataset_type, first.dataset_config, first.dataset_split) == ("mrpc", None, "validation")
    assert first.metric_name == "F1, median of 3 seeds"


def test_rows_of_the_hub_are_a_data_set(tmp_path: Path) -> None:
    """Without --data the rows are the hub's, and the scores name them."""
    tuned = FinetuneOptions(model="org/base", output=tmp_path / "a", task="mrpc")
    write_model(tmp_path / "a", 10, [record("finetune", tuned, {"mrpc/f1": 0.9})])
    write_cards(tmp_path / "out", tmp_path / "a")
    data = ModelCard.load(tmp_path / "a/README.md").data
    (entry,) = data.eval_results
    assert data.datasets == ["nyu-mll/glue"]
    assert (entry.dataset_type, entry.dataset_config) == ("nyu-mll/glue", "mrpc")
    assert "text_pair" in (tmp_path / "a/README.md").read_text()  # MRPC compares two sentences


def test_a_card_shows_how_to_use_its_model_and_its_results_alone(chain: Path, tmp_path: Path) -> None:
    """The code is valid Python for the kind of model; other models of the report have cards of their own."""
    write_cards(tmp_path / "out", chain)
    card = (chain / "student-tuned/README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    ast.parse(code)
    assert 'pipeline("text-classification", model="student-tuned")' in code
    assert "control-tuned" not in card.partition("## Results")[2].partition("## Training data")[0]
    assert "fill-mask" in (chain / "student/README.md").read_text()
    (chain / "student/modules.json").write_text("[]")
    write_cards(tmp_path / "again", chain)
    assert 'SentenceTransformer("student")' in (chain / "student/README.md").read_text()


def test_the_text_has_data_commands_and_limits(chain: Path, tmp_path: Path) -> None:
    """Data, commands, seeds and hours are those of this model; limits follow from its records."""
    write_cards(tmp_path / "out", chain)
    student, baseline = ((chain / f"{name}-tuned/README.md").read_text() for name in ("student", "control"))
    assert "- words.txt: distillation (student), 300 tokens read" in student
    assert "Training took 0.05 hours (3 min 0 s) in all: distill seed 42, finetune seeds 42 to 44." in student
    assert "distilkit distill extracted --corpus words.txt -o student" in student
    assert "-o control" not in student
    assert "blocks of 128 tokens" in student
    assert "one seed" not in student
    assert "Scores come from one seed" in baseline
    assert "No baseline" not in student
    plain = (chain / "extracted/README.md").read_text()
    assert "Layers were removed without further training" in plain
    assert ModelCard.load(chain / "extracted/README.md").data.eval_results is None


def test_hub_corpora_are_data_sets_and_local_teachers_no_base_model(tmp_path: Path) -> None:
    """A hub corpus name:config is listed by its name; local paths mean nothing to the hub and are left out."""
    made = InitOptions(teacher=str(tmp_path), output=tmp_path / "a")
    trained = DistillOptions(student="/s", corpus="wikimedia/wikipedia:20231101.en", output=tmp_path / "a")
    write_model(tmp_path / "a", 10, [record("init", made, {}), record("distill", trained, {})])
    write_cards(tmp_path / "out", tmp_path / "a")
    data = ModelCard.load(tmp_path / "a/README.md").data
    assert data.datasets == ["wikimedia/wikipedia"]
    assert data.base_model is None
    assert data.pipeline_tag == "fill-mask"


@pytest.mark.parametrize(
    ("head", "task", "library"),
    [
        ("sentence-encoder", "sentence-similarity", "sentence-transformers"),
        ("sequence-classification", "text-classification", "transformers"),
        ("token-classification", "token-classification", "transformers"),
        ("encoder", "feature-extraction", "transformers"),
    ],
)
def test_the_hub_is_told_what_a_student_is(tmp_path: Path, head: str, task: str, library: str) -> None:
    """By what it was when it was distilled."""
    trained = DistillOptions(student="/s", corpus="c", output=tmp_path / "a")
    write_model(tmp_path / "a", 10, [record("distill", trained, {}, head=head)])
    write_cards(tmp_path / "out", tmp_path / "a")
    data = ModelCard.load(tmp_path / "a/README.md").data
    assert (data.pipeline_tag, data.library_name) == (task, library)


def test_a_custom_task_is_listed_by_the_name_of_its_data(tmp_path: Path) -> None:
    """Local data has the name of its folder; a score of NaN is left out."""
    options = {"task": "custom", "data": tmp_path / "tickets", "text": ("t",), "label": "l"}
    tuned = FinetuneOptions(model="org/base", output=tmp_path / "a", **options)
    metrics = {"custom/accuracy": 0.75, "custom/f1_macro": float("nan")}
    write_model(tmp_path / "a", 10, [record("finetune", tuned, metrics)])
    write_cards(tmp_path / "out", tmp_path / "a")
    data = ModelCard.load(tmp_path / "a/README.md").data
    (entry,) = data.eval_results
    assert (entry.dataset_name, entry.metric_value, data.base_model) == ("tickets", 0.75, "org/base")


def test_only_an_unchanged_card_is_overwritten(chain: Path, tmp_path: Path) -> None:
    """An edited card, or one that distilkit did not write, is refused before any file is written, unless --force."""
    readme = chain / "student-tuned/README.md"
    write_cards(tmp_path / "one", chain)
    first = readme.read_text()
    write_cards(tmp_path / "two", chain)
    assert readme.read_text() == first
    for text in (first.replace("## Limits", "## Limits\n\nMy own words.\n"), "# Somebody else's\n"):
        readme.write_text(text)
        with pytest.raises(DistilkitError, match=r"student-tuned/README\.md' .*--force"):
            write_cards(tmp_path / "three", chain)
        assert readme.read_text() == text
        assert not (tmp_path / "three").exists()
    write_cards(tmp_path / "three", chain, force=True)
    assert readme.read_text() == first
    assert not list((chain / "student-tuned").glob("*.partial*"))


def test_cards_are_for_given_checkpoints_that_distilkit_made(chain: Path, tmp_path: Path) -> None:
    """A model that was only measured beside a given one gets none; without any checkpoint, --card is an error."""
    (chain / "eval.json").rename(chain / "student-tuned/eval.json")
    write_cards(tmp_path / "out", chain / "student-tuned")
    assert [path.parent.name for path in chain.glob("*/README.md")] == ["student-tuned"]
    (chain / "control/distilkit.json").unlink()
    with pytest.raises(DistilkitError, match="--card"):
        write_cards(tmp_path / "none", chain / "control")


def test_names_are_escaped_in_metadata_and_text(tmp_path: Path) -> None:
    """Special characters of YAML and Markdown in a name are shown as they are."""
    name = "a: b # {x} *c* <d> | 'e"
    write_model(tmp_path / name, 10, [record("init", InitOptions(teacher="org/base", output=tmp_path / name), {})])
    write_cards(tmp_path / "out", tmp_path / name)
    card = ModelCard.load(tmp_path / name / "README.md")
    assert card.data.model_name in (name, None)  # huggingface_hub reads it back only if there are scores
    assert r"# a: b # {x} \*c\* &lt;d&gt; \| 'e" in card.text


def test_a_task_teacher_is_not_the_base_model_and_test_rows_are_named(tmp_path: Path) -> None:
    """The base model is the one that was trained; IMDb's scores are marked as scores on test rows."""
    tuned = FinetuneOptions(model="org/base", teacher="org/expert", task="imdb", output=tmp_path / "a")
    done = record("finetune", tuned, {"imdb/accuracy": 0.9, "loss/max": 0.3}, scored_on_test_rows="imdb")
    write_model(tmp_path / "a", 10, [done])
    write_cards(tmp_path / "out", tmp_path / "a")
    data = ModelCard.load(tmp_path / "a/README.md").data
    assert data.base_model == "org/base"
    assert [(entry.dataset_name, entry.dataset_split) for entry in data.eval_results] == [("IMDb", "test")]
    assert "Scores are on public test rows" in (tmp_path / "a/README.md").read_text()


def test_a_collapse_is_a_limit(tmp_path: Path) -> None:
    """A model that predicts one label for every row can have a retention of 100 %."""
    tuned = FinetuneOptions(model="org/base", task="rte", output=tmp_path / "a")
    marks = {"rte/accuracy": 0.5, "rte/collapsed": 1.0}
    write_model(tmp_path / "a", 10, [record("finetune", tuned, marks)])
    write_cards(tmp_path / "out", tmp_path / "a")
    assert "- rte: it predicts the same label for every row" in (tmp_path / "a/README.md").read_text()
