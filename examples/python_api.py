"""From a teacher to a measured student in Python, cell by cell.

Open it as a notebook, or run it:

python examples/python_api.py TEACHER TEXT DIRECTORY [STEPS]
"""

# %% Names: a checkpoint with a masked-LM head, plain text, and where to write
import sys
from pathlib import Path

import distilkit

teacher, text, directory = sys.argv[1:4]
steps = int(sys.argv[4]) if len(sys.argv) > 4 else 1000
out = Path(directory)

# %% Extract a student with half of the teacher's layers
extracted = distilkit.init(teacher, output=out / "student0")
shares = extracted.metrics["student/parameters"] / extracted.metrics["teacher/parameters"]
print(f"layers kept: {extracted.environment['kept_layers']}, {shares:.0%} of the parameters")

# %% Distil it on text
trained = distilkit.distill(
    out / "student0", corpus=text, output=out / "student", steps=steps, seq_length=64, quiet=True
)
print(f"held-out loss: {trained.metrics['heldout_loss']:.3f}")

# %% Compare it with its teacher on text without labels
agreement = distilkit.eval(out / "student", agreement=text, max_length=64)
print(f"student and teacher agree at {agreement.metrics['agreement']:.1%} of the masked tokens")

# %% Measure size and speed beside the teacher
speed = distilkit.bench(teacher, out / "student", batch_sizes=1, seq_lengths=32, runs=5)
print(f"speed-up: {speed.metrics['1/speedup']:.2f}")

# %% A wrong option is an error in one line
try:
    distilkit.init(teacher, output=out / "another", layer=3)  # type: ignore[call-arg]
except distilkit.DistilkitError as error:
    print(f"as expected: {error}")
