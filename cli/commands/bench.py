"""bench: how fast a model runs on this machine, and how near that is to what its memory allows."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tokenglass.cli import options
from tokenglass.cli.options.groups import flat
from tokenglass.cli.options.model import Device, NamedModelOptions
from tokenglass.cli.progress import watch_steps
from tokenglass.cli.say import write_json
from tokenglass.cli.terminal.console import ENDLESS, make_console
from tokenglass.cli.terminal.opening import opening
from tokenglass.cli.text import count, nbytes
from tokenglass.cli.widgets.rates import Rate, Rates, in_digits

if TYPE_CHECKING:
    from tokenglass.model.loaded_model import LoadedModel
    from tokenglass.model.measuring.bench import Reading, Spread


Quick = Annotated[bool, typer.Option("--quick", help="Fewer contexts, fewer rows and 3 runs each.")]
NARROW = 44  # columns under which only the rates are told


@dataclass(frozen=True, slots=True)
class ModelOnCPU(NamedModelOptions):
    device: Device = field(default=Device.cpu, init=False)


@flat
def bench(
    model: ModelOnCPU,
    quick: Quick = False,
    as_json: options.Json = False,
    color: options.Color = options.ColorWhen.auto,
    debug: options.Debug = False,
) -> None:
    """Measure prefill and decode on the CPU, alone and in batches, and the share of the memory's speed they reach.

    Medians of several runs behind a warm-up, with the slowest and the fastest. The limit is the bytes of weights and
    cache that a step must read, over the bytes per second that the same threads read around each run.
    """
    with opening() as first:
        from tokenglass.cli.run import session
        from tokenglass.model.engine.memory import Caches
        from tokenglass.model.measuring.bench import Plan, measure, peak_memory

        opened = session.open_model(model, first)
        plan = (Plan((128, 512), (1, 4), runs=3) if quick else Plan()).within(opened.limit)
        loaded = session.load(opened, Caches(max(plan.contexts) + plan.tokens), first)
    readings: list[Reading] = []
    measuring = measure(loaded.engine, plan)
    for reading in watch_steps(measuring, "measuring", plan.steps, lambda _: len(readings) + 1):
        readings.append(reading)
    facts = describe(loaded, readings, plan.tokens, peak_memory())
    if as_json:
        write_json(facts, indent=2)
    else:
        show(facts, make_console(sys.stdout, color=color.value))


def describe(loaded: LoadedModel, readings: list[Reading], tokens: int, peak: int | None) -> dict[str, Any]:
    """The facts, by the names that JSON uses. Rates are tokens per second of all rows together."""
    rates: dict[str, list[dict[str, Any]]] = {"prefill": [], "decode": [], "batch": []}
    for reading in readings[1:]:
        fact: dict[str, Any] = {"context": reading.context, "rows": reading.rows, **in_numbers(reading.rate, "tokens")}
        if reading.first_token is not None:
            fact |= {"seconds_to_first_token": reading.first_token.median}
        else:
            fact |= {"bytes_per_step": reading.nbytes, "share_of_limit": reading.share}
        rates[reading.kind].append(fact)
    return {
        "model": loaded.name,
        "parameters": loaded.checkpoint.num_parameters,
        "weights": loaded.weights_in,
        "cache_dtype": loaded.cache_dtype,
        "backend": loaded.backend,
        "threads": loaded.threads,
        "tokens_per_run": tokens,
        "runs": len(readings[1].rate.values),
        "bandwidth": in_numbers(readings[0].rate, "bytes"),
        **rates,
        "peak_memory_nbytes": peak,
    }


def in_numbers(spread: Spread, unit: str) -> dict[str, float]:
    return {f"{unit}_per_second": spread.median, "lowest": spread.low, "highest": spread.high}


def show(facts: dict[str, Any], console: Console) -> None:
    """The same facts as tables and bars, as wide as there is room."""
    bandwidth = facts["bandwidth"]
    console.print(
        f"{facts['model']}: {count(facts['parameters'])} parameters in {facts['weights']}, cache in "
        f"{facts['cache_dtype']}, {facts['backend']}, {facts['threads']} thread{'s' * (facts['threads'] > 1)}"
    )
    console.print(
        f"medians of {facts['runs']} runs of {facts['tokens_per_run']} tokens; as many bytes can be read at "
        f"{bandwidth['bytes_per_second'] / 1e9:.1f} GB/s ({bandwidth['lowest'] / 1e9:.1f} to "
        f"{bandwidth['highest'] / 1e9:.1f})"
    )
    console.print()
    wide = rates_table(facts, spread=True)
    needed = wide.__rich_measure__(console, console.options.update(max_width=ENDLESS)).maximum
    console.print(wide if needed <= console.width else rates_table(facts, full=console.width >= NARROW))
    decode = [Rate(f"{row['context']:,}", row["tokens_per_second"], row["highest"]) for row in facts["decode"]]
    batch = [Rate(f"{row['rows']:,}", row["tokens_per_second"], row["highest"]) for row in facts["batch"]]
    console.print()
    console.print(Rates("decode tok/s by context", decode))
    console.print()
    console.print(Rates(f"decode tok/s by rows at once, context {facts['batch'][0]['context']:,}", batch))
    console.print()
    peak = facts["peak_memory_nbytes"]
    console.print(f"peak memory {'not reported' if peak is None else nbytes(peak)}")


def rates_table(facts: dict[str, Any], *, full: bool = True, spread: bool = False) -> Table:
    """A row per context, with what there is room for."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    headings = ("context", "prefill tok/s", "first token", "decode tok/s", "of the limit")
    for heading in headings if full else ("context", "prefill", "decode"):
        table.add_column(heading, justify="right", no_wrap=spread)
    for prefill, decode in zip(facts["prefill"], facts["decode"], strict=True):
        row = [f"{prefill['context']:,}", rate_text(prefill, spread), rate_text(decode, spread)]
        if full:
            row.insert(2, in_time(prefill["seconds_to_first_token"]))
            row.append(f"{decode['share_of_limit']:.0%}".replace("%", " %"))
        table.add_row(*row)
    return table


def rate_text(fact: dict[str, Any], spread: bool) -> str:
    """A rate, with the slowest and the fastest run where that is wanted."""
    ends = f" ({in_digits(fact['lowest'])} to {in_digits(fact['highest'])})" if spread else ""
    return in_digits(fact["tokens_per_second"]) + ends


def in_time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
