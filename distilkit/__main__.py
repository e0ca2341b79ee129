"""`python -m distilkit`, which is also what `accelerate launch -m distilkit …` runs."""

from distilkit.cli import app

app(prog_name="distilkit")
