"""The headline figures and the sentence of a report."""

from pathlib import Path

from records import save, write_model

from distilkit.options.bench import BenchOptions
from distilkit.options.evaluate import EvalOptions
from distilkit.options.init import InitOptions
from distilkit.record import record
from distilkit.reporting.models import read
from distilkit.reporting.summary import SIGNIFICANCE_NOTE, Tile, description, main_model, tiles, title


def headline(*directories: Path) -> list[Tile]:
    """Return the figures of the main model."""
    results = read([str(directory) for directory in directories])
    main = main_model(results)
    assert main is not None
    return tiles(results, main)


def test_the_headline_compares_the_student_with_teacher_and_baseline(chain: Path) -> None:
    """Half the parameters, 8 ms over 5 ms, 0.836 over 0.88, and 0.836 over 0.792, by hand."""
    assert headline(chain) == [
        Tile("50%", "smaller", "0.1M of 0.2M parameters"),
        Tile("1.60×", "as fast as teacher-tuned", "CPU fp32, batch 1, 64 tokens"),
        Tile("95.0%", "of teacher-tuned's score retained", "MRPC, 95 % confidence interval 91.0% to 98.5%"),
        Tile("1 of 1", "tasks significantly better than control-tuned", f"0 worse; {SIGNIFICANCE_NOTE}"),
    ]


def test_the_sentence_says_how_the_model_was_made(chain: Path) -> None:
    """Layers, text, time and task are those of the records."""
    results = read([str(chain)])
    main = main_model(results)
    assert main is not None
    assert title(results) == "student-tuned"
    assert description(results, main) == (
        "2 of the 4 layers of some/teacher; distilled on words.txt, 300 tokens in 1 min 30 s; fine-tuned on MRPC."
    )


def test_wnli_is_not_in_the_mean(tmp_path: Path) -> None:
    """With retentions of 80, 90 and 150 %, the last on WNLI, the headline is 85 % without WNLI."""
    born = InitOptions(teacher="some/teacher", output=tmp_path / "student")
    write_model(tmp_path / "student", 10, [record("init", born, {})])
    places = (str(tmp_path / "teacher"), str(tmp_path / "student"))
    for task, kept in {"cola": 0.8, "sst2": 0.9, "wnli": 1.5}.items():
        evaluated = EvalOptions(models=places, against=places[0], task=task)
        save(tmp_path / "student" / f"eval-{task}.json", record("eval", evaluated, {f"1/retention/{task}": kept}))
    wanted = Tile("85.0%", "of teacher's scores retained", "mean of 2 tasks, without WNLI; lowest on CoLA: 80.0%")
    assert wanted in headline(tmp_path / "student")


def test_a_speed_up_is_relative_to_the_first_model_of_its_own_bench(tmp_path: Path) -> None:
    """Another bench in the same report has another first model."""
    pairs = {"one": ("teacher", "student"), "two": ("other", "tiny")}
    for name in (name for pair in pairs.values() for name in pair):
        born = InitOptions(teacher="some/teacher", output=tmp_path / name)
        write_model(tmp_path / name, 10, [record("init", born, {})] if name == "student" else [])
    for name, pair in pairs.items():
        (tmp_path / name).mkdir()
        timed = BenchOptions(models=tuple(str(tmp_path / model) for model in pair))
        save(tmp_path / name / "bench.json", record("bench", timed, {"1/speedup": 2.0}))
    found = headline(*(tmp_path / name for name in ("student", "one", "two")))
    assert [tile.label for tile in found if tile.figure == "2.00×"] == ["as fast as teacher"]
