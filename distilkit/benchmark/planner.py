"""The students that a teacher could have, by shape alone, for `bench --plan`."""

from collections.abc import Iterator
from itertools import islice

from transformers import PreTrainedModel

from distilkit.benchmark.contenders import Contender, prepare, timed_part
from distilkit.encoders import checkpoint, distilbert, vocabulary
from distilkit.encoders.contents import config_errors, named_head
from distilkit.encoders.layer_selection import spread
from distilkit.encoders.layers import find_stack, truncate_shared
from distilkit.encoders.sizes import weights_bytes
from distilkit.encoders.surgery import build_from_config, reinitialise
from distilkit.errors import DistilkitError
from distilkit.options.bench import BenchOptions

SHARES = ((1, 4), (1, 3), (1, 2), (2, 3))  # of the teacher's layers, without --layers


def open_shape(name: str) -> PreTrainedModel:
    """Open a teacher for its shape: as it was saved if its weights are in a directory, else from its config alone.

    The config then names its head. If it names none, the head is a masked-LM head.
    """
    if weights_bytes(name):
        return checkpoint.open_as_saved(name)
    config = checkpoint.open_config(name)
    with config_errors(name):
        return build_from_config(config, named_head(config.architectures) or "masked-lm")


def prune_shape(model: PreTrainedModel, tokens: int | None) -> PreTrainedModel:
    """Return a model whose vocabulary has this number of tokens, with the padding token; None keeps all tokens.

    Raises DistilkitError if the model has fewer, or if only the padding token would be left.
    """
    size, padding = model.config.vocab_size, model.config.pad_token_id
    if tokens is None:
        return model
    if tokens > size:
        raise DistilkitError(f"--vocabulary {tokens} is more than the teacher has ({size}): lower it")
    special = () if padding is None else (padding,)
    if tokens <= len(special):
        raise DistilkitError(f"--vocabulary {tokens} leaves no token beside the padding token: raise it")
    others = (number for number in range(size) if number not in special)
    return vocabulary.prune(model, sorted([*special, *islice(others, tokens - len(special))]))


def student_shapes(teacher: PreTrainedModel, options: BenchOptions) -> Iterator[PreTrainedModel]:
    """Yield the students of --layers, with the layers that init keeps by default; they share the teacher's memory.

    Raises DistilkitError for more layers than the teacher has, and if --architecture cannot hold it.
    """
    depth = len(find_stack(teacher).layers)
    defaults = sorted({max(1, depth * part // whole) for part, whole in SHARES})
    for layers in dict.fromkeys(options.layers or defaults):
        if layers > depth:
            raise DistilkitError(f"--layers {layers} is more than the teacher has ({depth}): lower it")
        model = truncate_shared(teacher, spread(depth, layers))
        yield distilbert.convert(model) if options.architecture == "distilbert" else model


def random_contender(name: str, shape: PreTrainedModel, options: BenchOptions) -> Contender:
    """Return a model of this shape with random weights."""
    model = reinitialise(shape, options.seed).float()
    return Contender(name, model, prepare(timed_part(model), options))
