"""check: prove on this machine what must always hold of a model."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from tokenglass.cli.options.common import Debug, Json
from tokenglass.cli.options.groups import flat
from tokenglass.cli.options.model import Backend, CacheDtype, Dtype, NamedModelOptions, Quantize
from tokenglass.cli.options.view import Color, ColorWhen
from tokenglass.cli.say import write_json
from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.terminal.opening import opening
from tokenglass.cli.terminal.terminal import visible

if TYPE_CHECKING:
    from tokenglass.model.inspection.check import Finding

FAILED = 1


@flat
def check(
    model: NamedModelOptions,
    as_json: Json = False,
    color: Color = ColorWhen.auto,
    debug: Debug = False,
) -> None:
    """Check what must always hold, on this machine and this checkpoint: causality, cache, batches, text, dtype.

    Exits with 1 if something does not hold.
    """
    with opening() as first:
        from tokenglass.cli.run import session
        from tokenglass.model.engine.memory import Caches
        from tokenglass.model.inspection.check import LENGTH, Probe, against_exact, probe_ids, try_all

        caches = Caches(3 * LENGTH)
        opened = session.open_model(model, first)
        loaded = session.load(opened, caches, first)
        ids = probe_ids(loaded.tokenizer, loaded.engine.limit)
        probe = Probe(loaded.engine, loaded.tokenizer, ids, loaded.dtype)
        kinds = tuple(dict.fromkeys((loaded.weights_in, loaded.cache_dtype)))
        dtypes = ", cache in ".join(kinds)
        title = f"{loaded.name}, {dtypes}, {loaded.backend}, {len(ids)} tokens"
        first.show("trying what must always hold")
        findings = list(try_all(probe))
        if (kinds, loaded.backend) != (("float32",), "torch"):
            logits, name = probe.whole(ids), f"{dtypes} on {loaded.backend}"
            del probe, loaded  # two models need not fit in memory at once
            exact = session.load(session.open_model(exactly(model), first), caches, first)
            reference = Probe(exact.engine, exact.tokenizer, ids, "float32").whole(ids)
            base = "float32" if exact.quantize == "none" else f"{exact.quantize}, as it is stored,"
            findings += against_exact(reference, logits, exact.tokenizer, name, f"{base} on torch", kinds)
    if as_json:
        write_json({"checked": title, "findings": findings}, indent=2)
    else:
        show(findings, title, make_console(sys.stdout, color=color.value))
    if any(finding.passed is False for finding in findings):
        raise typer.Exit(FAILED)


def exactly(model: NamedModelOptions) -> NamedModelOptions:
    """The same model in float32 on torch, which all else is measured by."""
    return replace(
        model, dtype=Dtype.float32, quantize=Quantize.none, backend=Backend.torch, cache_dtype=CacheDtype.auto
    )


def show(findings: list[Finding], title: str, console: Console) -> None:
    """A row per claim: whether it holds, what was measured, and how far it might have been off."""
    narrow = console.size.width < 100
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("claim", overflow="fold")
    table.add_column("measured", justify="right", overflow="fold")
    table.add_column("allowed", justify="right", overflow="fold")
    if not narrow:
        table.add_column("", style="dim", overflow="fold")
    ascii_only = console.options.ascii_only
    for finding in findings:
        note = visible(finding.note, ascii_only=ascii_only)
        claim = Text(finding.claim)
        if narrow and note:
            claim.append(f"\n{note}", "dim")
        measured = "not tried" if finding.value is None else f"{number(finding.value)} {finding.unit}"
        allowed = "" if finding.tolerance is None else number(finding.tolerance)
        table.add_row(verdict(finding.passed), claim, measured, allowed, *([] if narrow else [note]))
    console.print(Text(title, "bold"))
    console.print(table)
    failed = sum(finding.passed is False for finding in findings)
    console.print(Text("everything holds" if not failed else f"{failed} of {len(findings)} do not hold", "bold"))


def verdict(passed: bool | None) -> Text:
    if passed is None:
        return Text("note", Style(dim=True))
    return Text("holds", Style(color="green")) if passed else Text("FAILS", Style(color="red", bold=True))


def number(value: float) -> str:
    """Two significant digits, never rounded to 0."""
    return "0" if value == 0 else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"
