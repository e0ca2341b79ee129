"""The files that sentence-transformers adds to a checkpoint: read them, and hand them on to a student."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.utils.hub import cached_file

from distilkit.errors import DistilkitError
from distilkit.files import replacing, write_text

MODULES = "modules.json"  # its presence makes a checkpoint a sentence-transformers model
MODEL_SETTINGS = "config_sentence_transformers.json"
INPUT_SETTINGS = (  # of the Transformer module; all but the first are names of old versions
    "sentence_bert_config.json",
    *(f"sentence_{name}_config.json" for name in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta")),
    "sentence_xlnet_config.json",
)


@dataclass(frozen=True)
class ModuleFiles:
    """A module as modules.json lists it, with its config and weights."""

    entry: Mapping[str, Any]  # idx, name, path, type
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The name of its class, like "Pooling"."""
        return str(self.entry["type"]).rpartition(".")[2]


@dataclass(frozen=True)
class Layout:
    """What a directory of sentence-transformers has beside the encoder and its tokenizer."""

    modules: tuple[ModuleFiles, ...]  # the first is the Transformer
    input_settings: Mapping[str, Any] = field(default_factory=dict)  # max_seq_length, do_lower_case
    model_settings: Mapping[str, Any] = field(default_factory=dict)  # prompts, default_prompt_name, model_type

    @property
    def is_sentence_encoder(self) -> bool:
        """False for the other models that have this layout: cross-encoders and sparse encoders."""
        return bool(self.model_settings.get("model_type", "SentenceTransformer") == "SentenceTransformer")

    def with_weights(self, weights: Mapping[str, Mapping[str, Tensor]]) -> "Layout":
        """Return the layout with other weights for some modules, by their path."""
        modules = [
            replace(module, weights=weights.get(module.entry["path"], module.weights)) for module in self.modules
        ]
        return replace(self, modules=tuple(modules))

    def write(self, directory: Path) -> None:
        """Write the files into a checkpoint's directory."""
        write_json(directory / MODULES, [dict(module.entry) for module in self.modules])
        write_json(directory / INPUT_SETTINGS[0], self.input_settings)
        write_json(directory / MODEL_SETTINGS, self.model_settings)
        for module in self.modules[1:]:
            folder = directory / module.entry["path"]
            if module.config or module.weights:
                folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "config.json", module.config)
            if module.weights:
                with replacing(folder / "model.safetensors") as partial:
                    save_file({name: tensor.contiguous() for name, tensor in module.weights.items()}, partial)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, unless it would be empty."""
    if content:
        write_text(path, json.dumps(content, indent=2) + "\n")


def read_layout(name: str) -> Layout | None:
    """Return the layout of a checkpoint, a directory or a hub id; None if sentence-transformers did not write it.

    Raises DistilkitError if a file is missing or damaged.
    """
    entries = _read_json(name, MODULES)
    if entries is None:
        return None
    try:
        paths = [(str(entry["type"]), str(entry["path"])) for entry in entries]
    except (TypeError, KeyError):
        raise DistilkitError(f"'{name}' has a {MODULES} that does not list modules: restore it") from None
    if not paths or paths[0][1]:
        raise DistilkitError(
            f"'{name}' does not have its encoder at the top (modules.json: {paths[0][1] if paths else 'no modules'}): "
            "load it and save it again with the installed sentence-transformers"
        )
    return Layout(
        modules=(ModuleFiles(entries[0]), *_read_modules(name, entries[1:])),
        input_settings=next((found for file in INPUT_SETTINGS if (found := _read_json(name, file))), {}),
        model_settings=_read_json(name, MODEL_SETTINGS) or {},
    )


def _read_modules(name: str, entries: list[dict[str, Any]]) -> Iterator[ModuleFiles]:
    for entry in entries:
        path = str(entry["path"])
        if Path(path).is_absolute() or ".." in Path(path).parts or not path:
            raise DistilkitError(f"'{name}' has a module outside of it (modules.json: '{path}'): correct its path")
        yield ModuleFiles(entry, _read_json(name, f"{path}/config.json") or {}, _read_weights(name, path))


def _read_weights(name: str, folder: str) -> dict[str, Tensor]:
    file = _find(name, f"{folder}/model.safetensors")
    if file is None:
        if _find(name, f"{folder}/pytorch_model.bin"):
            raise DistilkitError(
                f"'{name}' has the weights of {folder} in a pickle, and pickles are not read: load it with "
                "sentence-transformers and save it again"
            )
        return {}
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise DistilkitError(f"'{name}' has unreadable weights in {folder} ({error}): save it again") from None


def _read_json(name: str, file: str) -> Any:
    path = _find(name, file)
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DistilkitError(f"'{name}' has a {file} that cannot be read ({error}): restore it") from None


def _find(name: str, file: str) -> str | None:
    """Return the path of a file of a checkpoint, downloaded if it is on the hub, or None."""
    return cached_file(
        name, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
